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
for (const field of document.querySelectorAll('input.copy')) {
  field.addEventListener('focus', () => field.select());
}

// one box marks all of a table
for (const all of document.querySelectorAll('input[data-all]')) {
  all.hidden = false;
  all.addEventListener('change', () => {
    for (const box of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) box.checked = all.checked;
  });
}

// the live view: what comes was written by strangers, so it becomes text and nothing else
const live = document.getElementById('live');
if (live) {
  const [state, counts, pause] = ['state', 'counts', 'pause'].map((name) => document.getElementById(`live-${name}`));
  const rows = live.querySelector('tbody');
  let source, shown = 0, counted = 0, lost = 0;
  const stop = (why) => {
    source.close();
    state.textContent = why;
    pause.textContent = 'Go on';
  };
  const link = (address, text) => {
    const a = document.createElement('a');
    a.href = address;
    a.textContent = text;
    return a;
  };
  const tell = () => { counts.textContent = `${shown} shown, ${counted} more counted, ${lost} lost because this page was too slow.`; };
  const start = () => {
    let of = { counted: 0, lost: 0 }; // of this connection
    state.textContent = 'Connecting';
    pause.textContent = 'Pause';
    source = new EventSource(live.dataset.events);
    source.onopen = () => {
      of = { counted: 0, lost: 0 };
      state.textContent = 'Connected';
    };
    source.onerror = () => {
      if (source.readyState === 2) stop('Not connected: too many live views are open, or you are signed out. Load the page again.');
      else state.textContent = 'Connecting again';
    };
    source.addEventListener('end', (event) => stop(event.data));
    source.addEventListener('counts', (event) => {
      const now = JSON.parse(event.data);
      counted += now.counted - of.counted;
      lost += now.lost - of.lost;
      of = now;
      if (shown + counted + lost) tell();
    });
    source.addEventListener('row', (event) => {
      const { cells, click, campaign, counts: isCounted } = JSON.parse(event.data);
      const row = document.createElement('tr');
      cells.forEach((text, n) => {
        const cell = document.createElement(n ? 'td' : 'th');
        if (!n) cell.scope = 'row';
        cell.className = ['stay', '', '', '', '', 'mono', isCounted ? '' : 'bad', 'number-column'][n];
        cell.append(n === 0 ? link(click, text) : n === 2 ? link(campaign, text) : text);
        row.append(cell);
      });
      rows.prepend(row);
      while (rows.rows.length > live.dataset.rows) rows.lastChild.remove();
      shown += 1;
      tell();
    });
  };
  pause.addEventListener('click', () => source.readyState === 2 ? start() : stop('Paused'));
  live.hidden = false;
  start();
}
