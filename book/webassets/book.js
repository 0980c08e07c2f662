// A formula wider than its column scrolls, so the keyboard must reach it.
const reach = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  document.querySelectorAll('mjx-container[display="true"]').forEach((formula) => reach.observe(formula));
});
