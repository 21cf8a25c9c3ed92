# control_two.t, with control servers that do as Headscale does.

use v5.36;

use FindBin;

our $headscale = 1;
require "$FindBin::Bin/control_two.t";
