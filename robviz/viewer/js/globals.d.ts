// What `app.js` leaves on the page.
interface Window {
  robviz: Record<string, (...args: never[]) => { destroy: () => void }>;
}
