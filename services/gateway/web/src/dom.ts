// A few lines that make building elements readable.

type Attributes = Record<string, string | boolean | undefined>;

/** Makes an element with attributes and children; text children are escaped. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Makes an icon from the path data of a 24 by 24 drawing. */
export function icon(path: string): SVGSVGElement {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(namespace, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

export const icons = {
  microphone: "M12 15a4 4 0 0 0 4-4V6a4 4 0 0 0-8 0v5a4 4 0 0 0 4 4Zm-7-4a7 7 0 0 0 14 0M12 18v3",
  microphoneOff: "M3 3l18 18M9 9v2a3 3 0 0 0 5 2.2M16 11V6a4 4 0 0 0-7.4-2.1M5 11a7 7 0 0 0 11 5.7M19 11a7 7 0 0 1-.6 2.8M12 18v3",
  camera: "M3 7.5A1.5 1.5 0 0 1 4.500 6h9A1.500 1.500 0 0 1 15 7.500v9a1.500 1.500 0 0 1-1.500 1.500h-9A1.500 1.500 0 0 1 3 16.500ZM15 10.500l6-3.500v10l-6-3.500",
  cameraOff: "M3 3l18 18M15 12V7.500A1.500 1.500 0 0 0 13.500 6H9M4 6.500A1.500 1.500 0 0 0 3 8v8.500A1.500 1.500 0 0 0 4.500 18h9a1.500 1.500 0 0 0 1.200-.6M15 10.500l6-3.500v10l-4-2.300",
  screen: "M3 5h18v11H3ZM9 20h6M12 16v4M12 13V8M9.500 10.200 12 7.700l2.500 2.500",
  chat: "M4 5h16v11H9l-5 4Z",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.700-5.700L12 7M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.700 5.700L12 17",
  leave: "M4 15.500c-1.200-1.600-1-3.700.6-4.900a13 13 0 0 1 14.800 0c1.600 1.200 1.800 3.300.6 4.900l-3.500-.9-.5-2.600a11 11 0 0 0-8 0l-.5 2.600Z",
  send: "M4 12 20 4l-5 16-3.500-6.500Z",
  close: "M6 6l12 12M18 6 6 18",
};
