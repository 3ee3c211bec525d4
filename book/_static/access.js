// What the theme leaves out: wide tables that scroll can be reached by keyboard, a bibliography is no ARIA list (its
// entries are of a role that such a list may not hold), a figure opens by itself in its own size, and no line ends
// between a formula and the sign after it, or between a number and its unit. Thousands are set apart by thin spaces.
// Tables of sentences can stack their cells on a narrow screen: each cell knows its column's head. A minus is a minus.
// What is printed is printed in the light. A fold is named by its own words.
(() => {
  const UNIT = '(?:%|dB|bits?|bytes?|s|ms|[kMG]i?B|bpp|GMAC|megapixels?)(?![\\w-])';
  const after = new RegExp(`(\\d) (?=${UNIT})`, 'g'), first = new RegExp(`^ (?=${UNIT})`);
  const every = (query, act) => document.querySelectorAll(query).forEach(act);
  const reach = () => every('.pst-scrollable-table-container, .cell_output > .output, mjx-container[display="true"]', (e) => {
    const name = {role: 'region', 'aria-label': 'Goes on to the side', tabindex: 0};
    const scrolls = e.scrollWidth > e.clientWidth, formula = e.matches('mjx-container');
    for (const [key, value] of Object.entries(formula ? {tabindex: 0} : name))
      if (scrolls) e.setAttribute(key, value); else e.removeAttribute(key);
  });

  function open(image) {
    const link = document.createElement('a');
    link.href = image.src;
    if (!image.alt) link.setAttribute('aria-label', 'The figure by itself');
    image.before(link);
    link.append(image);
  }

  // what is compared is not blurred: no picture under a divider is shown at more than twice its size
  function sharp(box) {
    const image = box.querySelector('img'), limit = () => { box.style.maxWidth = `min(100%, ${2 * image.naturalWidth}px)`; };
    if (image.complete) limit(); else image.addEventListener('load', limit);
  }

  function keep(formula) {
    const next = formula.nextSibling, sign = next?.nodeType === Node.TEXT_NODE && next.data.match(/^[.,;:!?)\]’”]+/)?.[0];
    if (!sign) return;
    const kept = document.createElement('span');
    kept.className = 'kept';
    formula.before(kept);
    next.data = next.data.slice(sign.length);
    kept.append(formula, sign);
  }

  function bind(article) {
    const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    for (let before = '', node = texts.nextNode(); node; before = node.data, node = texts.nextNode()) {
      if (node.parentElement.closest('pre, code, script, style, .math')) continue;
      const bound = (/\d$/.test(before) ? node.data.replace(first, '\u00a0') : node.data).replace(after, '$1\u00a0')
        .replace(/(\d),(?=\d{3}(?!\d))/g, '$1\u202f').replace(/(^|[\s(])-(?=\.?\d)/g, '$1\u2212');
      if (bound !== node.data) node.data = bound;
    }
  }

  const ROLES = {TABLE: 'table', THEAD: 'rowgroup', TBODY: 'rowgroup', TR: 'row', TH: 'columnheader', TD: 'cell'};
  function stack(table) {
    const heads = [...table.querySelectorAll('thead th')].map((head) => head.textContent.trim());
    const cells = [...table.querySelectorAll('tbody td')];
    if (heads.length < 3 || !cells.some((cell) => cell.textContent.length > 60)) return;
    table.classList.add('stacks');
    cells.filter((cell) => cell.textContent.trim()).forEach((cell) => { cell.dataset.head = heads[cell.cellIndex] ?? ''; });
    // a browser forgets what a table is when its cells are blocks
    [table, ...table.querySelectorAll('thead, tbody, tr, th, td')].forEach((e) => e.setAttribute('role', ROLES[e.tagName]));
  }

  const root = document.documentElement;
  let dark = false;
  addEventListener('beforeprint', () => { dark = root.dataset.theme === 'dark'; if (dark) root.dataset.theme = 'light'; });
  addEventListener('afterprint', () => { if (dark) root.dataset.theme = 'dark'; });

  document.addEventListener('DOMContentLoaded', () => {
    every('summary[aria-label="Toggle hidden content"]', (e) => e.removeAttribute('aria-label'));
    every('.citation[role]', (e) => e.removeAttribute('role'));
    every('.citation-list[role="list"]', (e) => e.removeAttribute('role'));
    every('.bd-article :is(figure, .cell_output) > img:not([src^="data:"], .ba *, .play *)', open);
    every('.bd-article .ba', sharp);
    every('.bd-article span.math', keep);
    every('.bd-article', bind);
    every('.bd-article table.table', stack);
    new ResizeObserver(reach).observe(document.body);
    reach();
  });
})();
