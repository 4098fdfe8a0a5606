// What `app.js` leaves on the page: views to fill elements with, and what gradio's events call. And gradio's parts.
interface Window {
  robviz: Record<string, (...args: never[]) => unknown>;
  gradio_config?: { components: { type: string; props: Record<string, unknown> }[] };
}
