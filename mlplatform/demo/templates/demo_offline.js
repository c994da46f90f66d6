const filter = document.getElementById("filter");
if (filter) {
  filter.hidden = false;
  filter.querySelector("select").addEventListener("change", (event) => {
    for (const card of document.querySelectorAll(".card[data-of]"))
      card.hidden = event.target.value !== "" && card.dataset.of !== event.target.value;
  });
}
