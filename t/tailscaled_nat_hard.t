# nginx behind a router that takes another port for each who is talked to: as
# tailscaled_nat.t otherwise.

use v5.36;

use FindBin;

our $kind = 'hard';

defined do "$FindBin::Bin/tailscaled_nat.t" or die $@ || $!;
