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

// shortcuts: the keys that links name themselves, / for the search and ? for the list; none while a field has the focus
const list = document.getElementById('shortcuts');
if (list) {
  const STORED = 'octo.shortcuts';
  let areOn = true;
  try { areOn = localStorage.getItem(STORED) !== 'off'; } catch { /* nothing is kept: they are on */ }
  const of = (key) => document.querySelector(`[aria-keyshortcuts="${CSS.escape(key)}"]`);
  const search = () => document.querySelector('main input[type=search]');
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  const dialog = document.createElement('dialog');
  dialog.setAttribute('aria-labelledby', 'shortcuts-title');
  const show = () => {
    const keys = [...document.querySelectorAll('[aria-keyshortcuts]')]
      .map((it) => [it.getAttribute('aria-keyshortcuts'), it.textContent]);
    if (search()) keys.push(['/', 'Search']);
    keys.push(['?', 'This list']);
    const title = Object.assign(make('h2', 'Keyboard shortcuts'), { id: 'shortcuts-title' });
    const names = document.createElement('dl');
    for (const [key, text] of keys) names.append(make('dt', key), make('dd', text));
    const state = make('p', areOn ? 'They are on.' : 'They are off.');
    state.setAttribute('role', 'status');
    const turn = make('button', areOn ? 'Turn them off' : 'Turn them on');
    turn.addEventListener('click', () => {
      areOn = !areOn;
      try { localStorage.setItem(STORED, areOn ? 'on' : 'off'); } catch { /* for this page only */ }
      show();
      dialog.querySelector('button').focus();
    });
    const close = make('button', 'Close');
    close.addEventListener('click', () => dialog.close());
    dialog.replaceChildren(title, names, state, turn, ' ', close);
    if (!dialog.open) dialog.showModal();
  };
  document.body.append(dialog);
  list.hidden = false;
  list.addEventListener('click', show);
  document.addEventListener('keydown', (event) => {
    const isTaken = event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || dialog.open;
    // arrows in a box that scrolls are the box's
    const isTyped = event.target.closest?.('input, select, textarea, [contenteditable]')
      || (event.key.startsWith('Arrow') && event.target.closest?.('.scroll'));
    if (!areOn || isTaken || isTyped) return;
    const field = event.key === '/' && search();
    if (event.key === '?') show();
    else if (field) field.focus();
    else {
      const link = of(event.key.length === 1 ? event.key.toUpperCase() : event.key);
      if (!link) return;
      link.click();
    }
    event.preventDefault();
  });
}

// a part of a page, asked for again: its form with every letter, or once a second while it waits for something
async function renew(address, id) {
  const answer = await fetch(address);
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const there = page.getElementById(id);
  if (answer.ok && there) document.getElementById(id).replaceWith(there);
}
for (const form of document.querySelectorAll('form[data-live]')) {
  let timer;
  form.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const asked = new URLSearchParams(new FormData(form));
      renew(`${form.action}?${asked}`, form.dataset.live).catch(() => {});
    }, 200);
  });
}
async function watch(polled) {
  for (let left = Number(polled.dataset.poll); left > 0 && document.querySelector('[data-waits]'); left -= 1) {
    await new Promise((go) => { setTimeout(go, 1000); });
    if (!document.hidden) await renew(location.href, polled.id).catch(() => {});
  }
}
for (const polled of document.querySelectorAll('[data-poll]')) watch(polled);

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
