/* The dashboard in a page of its own: the data stand in the page, deflated and as base64. */
async function openPage() {
  const packed = document.getElementById("kvmp-data").textContent;
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = sumsOf(new Uint8Array(await new Response(stream).arrayBuffer()));
  const host = document.getElementById("kvmp-dashboard");
  dashboard(data, host, data.theme, data.state, () => {}, { titled: false }); // the page has a title
  document.getElementById("kvmp-still").hidden = true; // what is shown where no script runs
  document.documentElement.dataset.ready = "yes";
}

openPage();
