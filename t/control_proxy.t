# Where nothing else leaves the network, the control server and the relays are
# reached by the proxy that the environment names.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);

my $control = $t->start_control(tls => 8443,
    keys => [{ Key => 'ops', User => 'ops@example.com', Reusable => \1 }]);
my $server = $t->underlay('control');
my $proxy = $t->underlay('proxy');
my $proc = $t->spawn('proxy',
    [$^X, "$FindBin::Bin/lib/Test/Tailnet/proxy.pl", $proxy, 3128, 'me:se@cret'],
    name => 'proxy');
$proc->wait_stdout(qr/^ready$/m, 5) or BAIL_OUT('the proxy is not ready');

$t->nft('host', <<"EOC");
table inet shut {
    chain out {
        type filter hook output priority 0;
        ip daddr $server counter reject
    }
}
EOC

$t->write_file('ops.key', "ops\n", 0600);
$t->write_config(<<"EOC");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node secure {
    control_url https://$server:8443; control_ca control.pem;
    auth_key file:%%TESTDIR%%/ops.key; state %%TESTDIR%%/secure;
}
tailnet_node clear {
    control_url @{[$control->url]}; control_ca control.pem;
    auth_key file:%%TESTDIR%%/ops.key; state %%TESTDIR%%/clear;
}
events { }
http { server { listen 127.0.0.1:8080; return 204; } }
EOC

sub wait_for ($name, $test) {
    my $n = {};

    return Test::Tailnet::Process::until_true(20, sub {
        $n = $t->node_status($name);
        return $test->($n);
    }) || do { diag(explain($n), $t->read_log); 0 };
}

sub runs ($n) { ($n->{control}{state} // '') eq 'running' }
sub words ($n) { $n->{control}{words} // '' }

# proxied(): what the proxy has been asked for.
sub proxied () {
    my %seen = map { $_ => 1 } grep { /^CONNECT|^refused/ }
        split /\n/, $proc->stdout;
    return \%seen;
}

sub environment ($user, %more) {
    my $url = "http://$user\@$proxy:3128";
    return (HTTPS_PROXY => $url, HTTP_PROXY => $url, %more);
}

# ---- the wrong password ----

$t->run(environment('me:wrong'));
for my $name (qw(secure clear)) {
    ok(wait_for($name, sub ($n) {
        words($n) =~ /proxy \Q$proxy\E:3128 refuses: HTTP\/1\.1 407/ }),
        "$name: the proxy's refusal is told");
}
is_deeply(proxied(), { refused => 1 }, 'it has refused');
unlike($t->read_log, qr/wrong/, 'no password in the log');
$t->stop;

# ---- the right one ----

$t->run(environment('me:se%40cret'));
ok(wait_for($_, \&runs), "$_: joined by the proxy") for qw(secure clear);
ok(proxied->{"CONNECT $server:$_"}, "which was asked for port $_")
    for 8443, 8080;
ok(wait_for($_, sub ($n) {
    grep { $_->{state} eq 'up' } ($n->{network}{relays} // [])->@* }),
    "$_: so is its relay") for qw(secure clear);
ok(proxied->{"CONNECT $server:443"}, 'the relay, too');
my $s = $control->node('secure');
ok($s->{Connected}, 'the server knows it');
$t->stop;

# ---- no_proxy ----

$t->nft('host', "delete table inet shut\n");
my $before = length $proc->stdout;
$t->run(environment('me:wrong', NO_PROXY => "example.com,$server"));
ok(wait_for($_, \&runs), "$_: joined without the proxy") for qw(secure clear);
is(length $proc->stdout, $before, 'which was not asked');
$t->stop;
$proc->stop('TERM', 5);

$t->done_testing;
