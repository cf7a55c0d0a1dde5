// Texts and lines of the page whose contrast to what is behind them is below 4.5 (WCAG 2, level AA).
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [r, g, b] = rgba(color).map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const page = getComputedStyle(document.body).backgroundColor;
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (rgba(color)[3] === 255) return color;
    }
    return page;
  };
  const low = [];
  const check = (color, back, what) => contrast(color, back) < 4.5 && low.push(`${what}: ${color} on ${back}`);
  for (const element of document.querySelectorAll("body *:not(script, style, svg, svg *)")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (text && element.checkVisibility())
      check(getComputedStyle(element).color, behind(element), element.outerHTML.slice(0, 80));
  }
  for (const plot of document.querySelectorAll(".plot")) {
    for (const trace of plot._fullData ?? []) check(trace.line?.color ?? trace.marker.color, page, trace.meta);
    for (const text of plot.querySelectorAll("text")) check(getComputedStyle(text).fill, page, text.textContent);
  }
  return low;
}
