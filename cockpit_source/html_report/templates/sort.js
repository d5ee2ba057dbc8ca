// Headings become buttons that sort their table; without this script the tables stay as they were written.
(function () {
  "use strict";
  var collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  function valueOf(row, place) {
    var cell = row.cells[place];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }
  function compare(one, other) {
    return typeof one === "number" ? one - other : collator.compare(one, other);
  }
  function sort(table, heading) {
    var place = heading.cellIndex;
    var isNumber = heading.classList.contains("number");
    var now = heading.getAttribute("aria-sort");
    var direction = now === "descending" ? 1 : now === "ascending" ? -1 : isNumber ? -1 : 1;
    var body = table.tBodies[0];
    var rows = Array.from(body.rows).map(function (row) { return [valueOf(row, place), row]; });
    rows.sort(function (one, other) {
      // what is not known stays last both ways
      if (one[0] === null || other[0] === null) return (one[0] === null) - (other[0] === null);
      return direction * compare(one[0], other[0]);
    });
    rows.forEach(function (pair) { body.appendChild(pair[1]); });
    Array.from(table.tHead.rows[0].cells).forEach(function (cell) { cell.removeAttribute("aria-sort"); });
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (heading) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.textContent = "";
      heading.appendChild(button);
      button.addEventListener("click", function () { sort(table, heading); });
    });
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
