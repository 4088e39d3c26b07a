'use strict';
// The Node.js client etcd3 1.1.2 (npm), gRPC: the only kept one of that language.
//
// Run alone, with the runner's environment: `./prepare && ./run`; `./run watch/ kv/put` runs the cases that begin so.
// It takes up watches and logs in again by itself. It surfaces a compacted start as an error with a text only, without
// the revision, and has no way to ask for fragments or progress.

const { main } = require('./cases');
require('./kv');
require('./txn');
require('./watch');
require('./sessions');
require('./security');
require('./limits');

main();
