// Highlights the current section in the table of contents.

const links = new Map();
for (const link of document.querySelectorAll("nav .links a")) {
  links.set(document.getElementById(link.hash.slice(1)), link);
}

function follow(section) {
  for (const [other, link] of links) {
    if (other === section) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const link = links.get(section);
  const row = link.parentElement;
  if (row.scrollWidth > row.clientWidth) {
    row.scrollTo({ left: link.offsetLeft - row.clientWidth / 2 + link.offsetWidth / 2 });
  }
}

// A section is current while it covers a line in the upper part of the window.
const reading = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) follow(entry.target);
  },
  { rootMargin: "-30% 0px -69% 0px" },
);
for (const section of links.keys()) reading.observe(section);
