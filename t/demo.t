# The demo shows what it promises.

use v5.36;

use FindBin;
use Test::More tests => 1;

my $out = `$^X $FindBin::Bin/../demo/demo.pl --once 2>&1`;

is($?, 0, 'every row is as expected') or diag($out);
