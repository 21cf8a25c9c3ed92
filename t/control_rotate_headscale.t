# control_rotate.t, with a control server that does as Headscale does.

use v5.36;

use FindBin;

our $headscale = 1;
require "$FindBin::Bin/control_rotate.t";
