// Element construction. Texts become text nodes, never markup.

// Reveals the controls that require a script.
document.documentElement.classList.add("scripted");

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Modified keys belong to the browser, such as Alt with an arrow.
const modified = (event) => event.altKey || event.ctrlKey || event.metaKey;

const minus = (text) => text.replace("-", "−");
const decimals = (value, number = 4) => minus(value.toFixed(number));
