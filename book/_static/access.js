// What the theme leaves out: wide tables that scroll can be reached by keyboard, and a bibliography is no ARIA list
// (its entries are of a role that such a list may not hold).
(() => {
  const reach = () => document.querySelectorAll('.pst-scrollable-table-container, .cell_output > .output')
    .forEach((e) => { if (e.scrollWidth > e.clientWidth) e.tabIndex = 0; else e.removeAttribute('tabindex'); });
  document.addEventListener('DOMContentLoaded', () => {
    document.querySelectorAll('.citation-list[role="list"]').forEach((e) => e.removeAttribute('role'));
    new ResizeObserver(reach).observe(document.body);
    reach();
  });
})();
