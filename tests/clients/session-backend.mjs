// A back-end with sessions in a cookie, as the ticket system's front-ends have one: log-in, log-out, and the endpoint that
// the host asks about a cookie.
//
// Usage: node session-backend.mjs
//
// Prints {"url":"http://127.0.0.1:PORT"}, and serves until its standard input ends.

import express from "express";
import session from "express-session";

const app = express();
app.use(express.json());
app.use(session({ secret: "only for tests", resave: false, saveUninitialized: true, cookie: { maxAge: 3_600_000 } }));

app.get("/", (request, response) => response.send("a page, whose visitors have a cookie, too"));

app.post("/login", (request, response) => {
  const { user } = request.body;
  // Another id after the log-in, against session fixation.
  request.session.regenerate(() => {
    request.session.user = user;
    response.json({ ok: true });
  });
});

app.post("/logout", (request, response) => request.session.destroy(() => response.json({ ok: true })));

app.get("/session", (request, response) => {
  const { user, cookie } = request.session;
  if (!user) return response.status(401).json({ message: "not logged in" });
  response.json({ user, sessionId: request.sessionID, expires: cookie.expires });
});

const server = app.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` }));
});
process.stdin.resume().on("end", () => process.exit(0));
