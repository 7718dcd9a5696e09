"use strict";
// In the head: tabs are hidden from the first paint on, and Prism waits to be asked.
document.documentElement.classList.add("js");
window.Prism = {manual: true, disableWorkerMessageHandler: true};
