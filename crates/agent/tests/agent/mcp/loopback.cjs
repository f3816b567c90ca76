// A public server that would listen everywhere listens here only, and says on which port.
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => console.error(`on http://127.0.0.1:${this.address().port}`));
  return listen.call(this, { port: 0, host: "127.0.0.1" }, ...rest);
};
