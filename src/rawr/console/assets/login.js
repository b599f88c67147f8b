// Redeems the code of a login link. The code stands in the fragment, so that no server log and no referrer sees it.

const message = document.getElementById("message");
const next = message.dataset.next; // checked by the server: always a page of the console

async function signIn() {
  const code = location.hash.slice(1);
  if (code === "") return goOnIfSignedIn();
  // Before anything can fail: the code must not stay in the address bar or the history.
  history.replaceState(null, "", location.pathname + location.search);
  message.textContent = "Signing in ...";
  try {
    const answer = await fetch("/console/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code }),
    });
    if (answer.ok) return location.replace(next);
    message.textContent = (await answer.json()).message;
  } catch {
    message.textContent = "The server did not answer. Get a new link from the terminal:";
  }
}

// A link from another site arrives without the cookie, also for somebody who is signed in.
async function goOnIfSignedIn() {
  const answer = await fetch("/console/", { method: "HEAD", redirect: "manual" });
  if (answer.ok) location.replace(next);
}

window.addEventListener("hashchange", signIn); // a link pasted into this tab does not load the page again
await signIn();
