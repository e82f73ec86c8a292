// The script of landing pages; docs/script.md says how pages use it.
//
// It is sent without comments and with short names: a comment has lines of its own, a name of the script's own begins
// with $, and no statement relies on the end of a line. What stands between two underscores is filled in from the
// configuration when octo starts.
(($window, $document, $script) => {
  const $earlier = $window.__GLOBAL__;
  // a page that has it twice counts once
  if (!$script || $earlier?.on) return;

  const $attribute = ($name) => $script.getAttribute('data-' + $name);
  const $host = $attribute('host') || $script.src.replace(/__STEMS__[^/]*$/, '');
  const $campaign = $attribute('campaign');
  // nothing is kept under Global Privacy Control: there is no such storage
  const $storage = (__GPC__ ? 0 : $attribute('storage') || 'local') + 'Storage';

  // whether it may keep and send: 0 until somebody says so, -1 after a no
  let $consent = $attribute('consent') == 'wait' ? 0 : 1;
  // events that wait for consent, or for the answer to a visit
  let $queue = [];
  let $isWaiting, $isBegun, $id, $token;

  // a browser may forbid storage, and what is not there throws as well
  const $box = ($use) => {
    try {
      $use($window[$storage]);
    } catch {}
  };

  // a click of this page, to be remembered where it may
  const $take = ($newId, $newToken) => {
    $id = $newId;
    $token = $newToken || '';
    if ($consent > 0) $box(($it) => $it.setItem('__GLOBAL__', [$id, $token, Date.now()]));
  };

  // sets a parameter of a link, and leaves its other bytes as they are
  const $put = ($link, $name, $value) => {
    const $href = '' + ($link.href || $host + '/out');
    const $address = $href.split('#')[0];
    const $next = $address.replace(RegExp('([?&]' + $name + '=)[^&]*|$'), ($all, $given) => ($given || (/\?/.test($address) ? '&' : '?') + $name + '=') + $value) + $href.slice($address.length);
    if ($value && $next != $link.href) $link.href = $next;
  };

  // out-links get the token; what names the click gets its id
  const $fill = ($root) => $root.matches && [$root, ...$root.querySelectorAll('a,[data-octo],[name=click_id]')].forEach(($it) => {
    if ($it.matches('a[data-octo-out],a[href^="' + $host + '/out"]')) $put($it, 'k', $token);
    if ($id && $it.matches('[data-octo],[name=click_id]')) {
      if ($it.href) $put($it, $it.getAttribute('data-octo') || 'click_id', $id);
      else $it.value = $id;
    }
  });

  const $post = ($path, $body) => fetch($host + $path, { method: 'POST', body: $body, keepalive: true, credentials: 'include' });

  const $send = ($event) => {
    $event = { ...($id ? { click_id: $id } : { cid: $campaign }), ...$event };
    const $body = JSON.stringify($event);
    if (!navigator.sendBeacon?.($host + '__EVENT__', $body)) $post('__EVENT__', $body).catch(() => {
      new Image().src = $host + '__EVENT__.gif?' + new URLSearchParams({ ...$event.properties, ...$event, properties: '' });
    });
  };

  const $flush = () => {
    if ($consent > 0 && !$isWaiting) $queue.splice(0).forEach($send);
  };

  const $visit = ($cid) => {
    $isWaiting = 1;
    $post('__VISIT__', JSON.stringify({ cid: $cid, url: location.href, referrer: $document.referrer, params: $attribute('params') }))
      .then(($answer) => $answer.json())
      .then(($answer) => $answer.click_id && $take($answer.click_id, $answer.token))
      .catch(() => {})
      .then(() => {
        $isWaiting = 0;
        $fill($document.documentElement);
        $flush();
      });
  };

  // at the start, and whenever the page's address or what it may do has changed
  const $begin = () => {
    // the click that the address names; else, for 30 days, the one that was remembered
    const $query = new URLSearchParams(location.search);
    const $given = /^([\w-]{22}|[\da-f-]{36})(?=\.|$)/i.exec($query.get($attribute('param') || 'click_id'));
    if ($given) {
      $isBegun = 1;
      $take($given[0], $query.get('k') || $query.get('click_token'));
    } else if (!$id && $consent > 0) $box(($it) => {
      const $kept = $it.getItem('__GLOBAL__').split(',');
      if (Date.now() - $kept[2] < 2592e6) [$id, $token] = $kept;
    });
    $fill($document.documentElement);
    if ($consent < 1 || $document.prerendering) return;
    // a page that is loaded again is the same visit
    if ($campaign && !$isBegun && !($id && performance.navigation.type % 255)) $visit($campaign);
    $isBegun = 1;
    $flush();
  };

  const $octo = $window.__GLOBAL__ = ($command, $value) => {
    if ($command == 'event' && $consent >= 0 && !$queue[99]) $queue.push({ event_id: Date.now() + '-' + Math.random(), url: location.href, ...$value });
    if ($command == 'visit' && $consent > 0) $visit($value || $campaign);
    if ($command == 'consent') {
      $consent = $value ? 1 : -1;
      if ($value) {
        if ($id) $take($id, $token);
        $begin();
      } else {
        $queue = [];
        $box(($it) => $it.removeItem('__GLOBAL__'));
      }
    }
    $flush();
  };
  $octo.on = 1;

  ['pushState', 'replaceState'].forEach(($name) => {
    const $original = history[$name];
    history[$name] = function () {
      $original.apply(this, arguments);
      $begin();
    };
  });
  addEventListener('popstate', $begin);
  addEventListener('pagehide', () => {
    $isWaiting = 0;
    $flush();
  });
  $document.addEventListener('prerenderingchange', $begin);
  new MutationObserver(($records) => $records.forEach(($record) => {
    if ($record.attributeName) $fill($record.target);
    $record.addedNodes.forEach($fill);
  })).observe($document, { childList: true, subtree: true, attributeFilter: ['href'] });
  $begin();
  $earlier?.q?.forEach(($call) => $octo(...$call));
})(window, document, document.currentScript);
