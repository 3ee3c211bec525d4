// What the theme leaves out: wide tables that scroll can be reached by keyboard, a bibliography is no ARIA list (its
// entries are of a role that such a list may not hold), a figure opens by itself in its own size, and no line ends
// between a formula and the sign after it, or between a number and its unit. Thousands are set apart by thin spaces.
// Tables of sentences can stack their cells on a narrow screen: each cell knows its column's head.
(() => {
  const UNIT = '(?:%|dB|bits?|bytes?|s|ms|[kMG]i?B|bpp|GMAC|megapixels?)(?![\\w-])';
  const after = new RegExp(`(\\d) (?=${UNIT})`, 'g'), first = new RegExp(`^ (?=${UNIT})`);
  const every = (query, act) => document.querySelectorAll(query).forEach(act);
  const reach = () => every('.pst-scrollable-table-container, .cell_output > .output',
    (e) => { if (e.scrollWidth > e.clientWidth) e.tabIndex = 0; else e.removeAttribute('tabindex'); });

  function open(image) {
    const link = document.createElement('a');
    link.href = image.src;
    if (!image.alt) link.setAttribute('aria-label', 'The figure by itself');
    image.before(link);
    link.append(image);
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
        .replace(/(\d),(?=\d{3}(?!\d))/g, '$1\u202f');
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

  document.addEventListener('DOMContentLoaded', () => {
    every('.citation-list[role="list"]', (e) => e.removeAttribute('role'));
    every('.bd-article :is(figure, .cell_output) > img:not([src^="data:"], .ba *, .play *)', open);
    every('.bd-article span.math', keep);
    every('.bd-article', bind);
    every('.bd-article table.table', stack);
    new ResizeObserver(reach).observe(document.body);
    reach();
  });
})();
