# The same as ../control_crowd.t with a hundred thousand peers.

use v5.36;

use FindBin;

$ENV{TAILNET_CROWD} = 100_000;
exec $^X, "$FindBin::Bin/../control_crowd.t" or die "control_crowd.t: $!\n";
