# nginx is restarted, tailnetd with it, while a tailscaled peer goes on with its
# session: the new engine has forgotten that, but begins another at once,
# though no control server tells the peer of it.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);
my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com' }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state;
    tags         tag:web;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        tailnet_acl accept alice\@example.com;
        return 200 "hello\\n";
    }
}
EOF

# Only its IPv4 address is in the netmap.
$t->underlay('alice');
Test::Tailnet::Net::ip_batch($t->ns('alice'),
    'address flush dev eth0 scope global to fd77::/64');
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
$t->run;
my $web = $control->wait_node('web', 20) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
is($t->wait_http('alice', "http://$ip/", 20)->status, 200, 'alice is served');
like($alice->ping($ip, direct => 1), qr/ via 10\.77\.0\.1:41641 /, 'directly');
ok(Test::Tailnet::Process::until_true(20, sub {
    return Test::Tailnet::Process::slurp($t->testdir . '/state/netmap')
        =~ /10\.77\.0\.\d+:41641/;
}), 'the netmap is saved, with her address');

# ---- nobody tells her ----

$control->fault(Path => '/key', Status => 503, Count => 1000);
my $holder = $t->holder;
my $engine = $t->engine($holder);
ok($t->stop && $t->wait_gone(10, $holder, $engine), 'nginx ends, tailnetd too');
my $begin = time;
$t->run;
my $r = $t->wait_http('alice', "http://$ip/", 30);
my $took = time - $begin;
is($r->status, 200, 'the new one serves her');
# Left to herself, alice takes 15 s to see that her session is dead.
cmp_ok($took, '<', 8, 'before she gives up her session');
note(sprintf 'after %.2f s', $took);

$t->done_testing;
