// Making elements. Texts are never markup: they become text nodes.

// What needs a script is shown to those who have one.
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

// Keys that the browser itself may mean something by, such as Alt and an arrow.
const modified = (event) => event.altKey || event.ctrlKey || event.metaKey;

const minus = (text) => text.replace("-", "−");
const decimals = (value, number = 4) => minus(value.toFixed(number));
