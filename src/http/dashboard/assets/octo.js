// What pages do better with JavaScript; without it every control is a link or a form of its own.

// a link that signs in: its code stands behind #, which no server sees; it leaves the address before anybody reads it there
const code = new URLSearchParams(location.hash.slice(1)).get('t');
const secret = document.getElementById('secret');
if (code) {
  history.replaceState(null, '', location.pathname + location.search);
  if (secret) {
    secret.value = code;
    secret.form.requestSubmit();
  }
}

// buttons that copy what stands beside them
for (const button of document.querySelectorAll('button[data-copy]')) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const field = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      field.select(); // without https there is no clipboard: it is marked, to be copied by hand
      document.execCommand('copy');
    }
    const before = button.textContent;
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = before; }, 1500);
  });
}

// a field that holds something to be copied is marked as a whole
for (const field of document.querySelectorAll('.copy')) {
  field.addEventListener('focus', () => field.select());
}

// one box marks all of a table
for (const all of document.querySelectorAll('input[data-all]')) {
  all.hidden = false;
  all.addEventListener('change', () => {
    for (const box of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) box.checked = all.checked;
  });
}
