// Sets the theme that this browser keeps before anything is drawn.
try {
  if (localStorage.getItem("hilum-theme") === "light") document.documentElement.dataset.theme = "light";
} catch { /* a browser that keeps nothing: dark */ }
