// What `app.js` leaves on the page: views to fill elements with, and what gradio's events call.
interface Window {
  robviz: Record<string, (...args: never[]) => unknown>;
}
