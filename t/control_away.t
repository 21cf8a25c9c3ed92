# The control server is unreachable for half a minute, by the clock and with the
# usual patience: a tailscaled peer is served all the time, also by an nginx that
# is started meanwhile, from what was saved.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(sleep time);

use constant {
    AWAY => 30, # s
    PATIENCE => 60, # s; the pauses between tries grow up to 45 s
};

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com' }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOC");
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
        add_header X-User \$tailnet_user;
        root %%TESTDIR%%/html;
    }
}
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

$t->run;
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
my $web = $control->wait_node('web', 20) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
is($t->wait_http('alice', "http://$ip/", 20)->status, 200, 'alice is served');
ok(Test::Tailnet::Process::until_true(20, sub {
    Test::Tailnet::Process::slurp($t->testdir . '/state/netmap')
        =~ /\Q@{[$alice->ip]}\E/;
}), 'the netmap is saved, with her in it');

sub control_state () { $t->node_status->{control}{state} // '' }

# ---- half a minute without ----

my $loop = $t->start_reqloop('alice', url => "http://$ip:80/", parallel => 2,
    interval => 20, timeout => 15_000, size => 6);
$control->serve(0);
my $end = time + AWAY;
ok(Test::Tailnet::Process::until_true(20, sub { control_state() eq 'waiting' }),
    'the control server is away, as the status says');
my $back = 0;
while (time < $end) {
    $back++ if control_state() ne 'waiting';
    sleep 1;
}
is($back, 0, 'and stays so');
my $s = $loop->stop;
is($s->{failures}, 0, "of $s->{requests} requests none has failed")
    or diag(explain($s->{reasons}));
cmp_ok($s->{elapsed_ms}, '>=', 1000 * AWAY, 'in half a minute');

# ---- nginx is started meanwhile ----

my @pids = ($t->holder, $t->engine);
my $mark = $t->log_mark;
ok($t->stop && $t->wait_gone(10, @pids), 'nginx ends, tailnetd too');
$t->run;
my $r = $t->wait_http('alice', "http://$ip/", 30);
is($r->status, 200, 'the next one serves her') or diag($r->text);
is($r->header('x-user'), 'alice@example.com', 'whom it knows');
ok($t->wait_for_log(qr/netmap .*saved earlier/, 5,
    from => $mark), 'from what was saved');
isnt(control_state(), 'running', 'there is no control server');

# ---- it comes back ----

$control->serve(1);
ok(Test::Tailnet::Process::until_true(PATIENCE,
    sub { control_state() eq 'running' }), 'it is back: nginx joins again');
is($control->node('web')->{Node}{ID}, $web->{Node}{ID}, 'as the same node');
is($t->http_get('alice', "http://$ip/")->status, 200, 'alice is served');

$t->done_testing;
