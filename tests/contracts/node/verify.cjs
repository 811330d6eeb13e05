// Reads cases as JSON from stdin; prints for each whether the public JavaScript library accepts it.
const { Webhook } = require("standardwebhooks");

const cases = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const verdicts = cases.map(({ secret, headers, body }) => {
  try {
    new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
    return true;
  } catch (error) {
    return false;
  }
});
console.log(JSON.stringify(verdicts));
