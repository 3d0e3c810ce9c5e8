#!/usr/bin/env node
'use strict';
require('node:module').enableCompileCache?.(); // Node 22.1 and later
require('../dist/main.js');
