# A node that has never been there joins, and its first byte reaches a tailscaled
# peer within a second of nginx's start, which itself takes no time at all.  On a
# busy machine one of some tries is enough.  tailscaled_join_headscale.t runs it,
# too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use List::Util qw(min);
use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

use constant {
    TRIES => 8,
    WITHIN => 1, # s
    PATIENCE => 30,
};

our $headscale;
my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);
my $within = WITHIN;

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'],
        Reusable => \1 },
    { Key => 'key-alice', User => 'alice@example.com' }]);

$t->write_file('auth.key', "key-web\n", 0600);
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');

# config(n): the node of try n, which has a state directory of its own.
sub config ($n) {
    return <<"EOC";
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    hostname     web$n;
    state        %%TESTDIR%%/state$n;
    tags         tag:web;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        listen 127.0.0.1:8080;
        location / { root %%TESTDIR%%/html; }
    }
}
EOC
}
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

# Addresses are given one after the other.
my ($start, $first) = (PATIENCE, PATIENCE);
my $next = (split /\./, $alice->ip)[3];
for my $n (1 .. TRIES) {
    my $ip = $alice->ip =~ s/\d+\z/$next + $n/er;

    $t->write_config(config($n));
    my $begin = time;
    $t->run;
    my $r = $t->wait_http('host', 'http://127.0.0.1:8080/', PATIENCE);
    $start = min($start, time - $begin);
    is($r->status, 200, 'nginx serves others') or last;
    $r = $t->wait_http('alice', "http://$ip/", PATIENCE, timeout => 0.5);
    my $s = time - $begin;
    is($r->status, 200, 'and alice, over the mesh')
        or BAIL_OUT($r->text . $t->read_log);
    note(sprintf 'first byte after %.2f s', $s);
    $first = min($first, $s);
    $within = 5 * WITHIN # a sanitizer takes its time
        if Test::Tailnet::Process::slurp('/proc/' . $t->holder . '/maps')
            =~ /lib[alu]b?san/;
    my @pids = ($t->holder, $t->engine);
    $t->stop && $t->wait_gone(10, @pids) or BAIL_OUT('it does not end');
    $control->remove("web$n");
    last if $first < $within && $start < $within;
}
cmp_ok($start, '<', $within, 'nginx starts at once');
cmp_ok($first, '<', $within, 'the first byte is there soon after');

$t->done_testing;
