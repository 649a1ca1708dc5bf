// Access to embedded data, and table downloads.

const block = (name, value) => document.querySelector(`script[data-${name}="${CSS.escape(value)}"]`);

async function unpacked(script) {
  const bytes = Uint8Array.from(atob(script.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const unpackedJson = async (script) =>
  script ? JSON.parse(new TextDecoder().decode(await unpacked(script))) : null;

for (const button of document.querySelectorAll("button[data-csv]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.csv;
    const csv = new Blob([await unpacked(block("download", name))], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(csv), download: `${name}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
}
