# nginx joins a tailnet by a control server and an auth key: at once, under its
# name, and stays through the server's absence and restart.
# control_join_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

our $headscale;
my $t = Test::Tailnet->new(also => ['control']);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'secret-web', User => 'ops@example.com', Tags => ['tag:web'],
        Reusable => \1 }]);
my $url = $control->url;
my $alice = $t->node('alice', user => 'alice@example.com',
    addr => ['100.64.0.77']);

$t->write_file('auth.key', "secret-web\n", 0600);
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  $url;
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state;
    hostname     webserver;
    tags         tag:web;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        listen 127.0.0.1:8080;
        location / {
            tailnet_acl accept alice\@example.com local;
            add_header X-User \$tailnet_user;
            add_header X-Self \$tailnet_self_name;
            root %%TESTDIR%%/html;
        }
        location = /status { tailnet_acl accept local; tailnet_status; }
    }
}
EOF

sub slurp ($name) {
    open my $fh, '<', $t->testdir . "/$name" or return '';
    local $/;
    return <$fh>;
}

sub mode ($path) { sprintf '%04o', (stat $path)[2] & 07777 }

# ---- joining ----

mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

my $begin = time;
$t->run;
ok(time - $begin < 3, 'nginx starts at once');
is($t->http_get('host', 'http://127.0.0.1:8080/')->status, 200,
    'and serves elsewhere');
is($t->wait_control('web', 'running', 5), 'running', 'the node joins');
ok($t->wait_for_log(qr/node "web": joined its tailnet at \Q$url\E/, 5),
    'the log says so');
ok($t->wait_for_log(qr/node "web": netmap applied: 0 peers/, 5),
    'and what is there');

my $known = $control->wait_node('webserver', 5);
ok($known, 'the server knows it by its host name') or BAIL_OUT('not joined');
is_deeply($known->{Known}{Tags}, ['tag:web'], 'its tag');
is($known->{Node}{Cap}, 131, 'its capability version');

my $s = $t->node_status;
is($s->{state}, 'running', 'tailnetctl: running');
is($s->{self}{name}, 'webserver.tailnet.test', 'its name');
is($s->{control}{url}, $url, 'its control server');
like($t->ctl('status')->{stdout}, qr/^web: running$/m, 'for people, too');

# ---- its state directory ----

is(mode($t->testdir . '/state'), '0700', 'the state directory');
is(mode($t->testdir . "/state/$_"), '0600', "$_ in it") for qw(keys);
ok(Test::Tailnet::Process::until_true(5,
    sub { -e $t->testdir . '/state/netmap' }), 'the netmap is saved');
is(mode($t->testdir . '/state/netmap'), '0600', 'for its owner alone');
unlike($t->read_log, qr/secret-web|privkey:/, 'no secret in the log');

# ---- a peer ----

my %row = (ID => 77, StableID => 'n77', Name => 'alice.tailnet.test.',
    User => 4711, Key => $alice->{pub}, Addresses => ['100.64.0.77/32'],
    AllowedIPs => ['100.64.0.77/32'], Endpoints => $alice->{endpoints},
    IsWireGuardOnly => \1, MachineAuthorized => \1);
my $self = $known->{Node}{Addresses}[0] =~ s{/.*}{}r;

sub introduce () {
    $control->message('webserver', { PeersChanged => [\%row], UserProfiles => [
        { ID => 4711, LoginName => 'alice@example.com' }] });
}
introduce();
my $web = { name => 'web', pub => $known->{Node}{Key}, addr => [$self],
    routes => [], endpoints => [$t->underlay('host') . ':41641'] };
$t->start_wgpeer($alice, peers => [$web]);
my $r = $t->wait_http('alice', "http://$self/", 5);
is($r->status, 200, 'a peer of the netmap is let in') or diag($r->text);
is($r->header('x-user'), 'alice@example.com', 'by her login');
is($r->header('x-self'), 'webserver.tailnet.test', 'nginx knows its own name');

# ---- the server asks ----

if (!$headscale) {
    like($control->command('POST', '/nodes/webserver/c2n?path=/echo'),
        qr/^200/, 'a question of the server is answered');
    like($control->command('POST', '/nodes/webserver/c2n?path=/debug'),
        qr/^404/, 'an unknown one, too');
}
is($control->command('POST', '/nodes/webserver/ping'), '',
    'a ping, by HEAD outside the channel');

# ---- the stream ends, the channel closes, the server restarts ----

for my $how (qw(end kick restart)) {
    my $before = $t->node_status->{control}{streams};

    if ($how eq 'restart') {
        $control->serve(0);
        is($t->wait_control('web', 'waiting', 5), 'waiting',
            'the server is away');
        $control->serve(1);
    } else {
        $control->command('POST', "/nodes/webserver/$how");
    }
    ok(Test::Tailnet::Process::until_true(5, sub {
        ($t->node_status->{control}{streams} // 0) > $before
            && $t->node_status->{control}{state} eq 'running';
    }), "$how: a new stream");
}
is($control->node('webserver')->{Node}{ID}, $known->{Node}{ID},
    'of the same node');
introduce();
is($t->wait_http('alice', "http://$self/", 5)->status, 200, 'alice is back');

# ---- the server is away ----

ok(Test::Tailnet::Process::until_true(5, sub {
    slurp('state/netmap') =~ /alice\.tailnet\.test/;
}), 'the saved netmap has her');
$t->expect_alert(qr/engine \d+ was killed by signal 9/);
$control->stop;
is($t->wait_control('web', 'waiting', 5), 'waiting',
    'the server is away: it is said');
like($t->node_status->{error}, qr/control server \S+: /, 'with the reason');
is($t->http_get('alice', "http://$self/")->status, 200, 'alice is served');
my $mark = $t->log_mark;
$t->reload;
is($t->http_get('alice', "http://$self/")->status, 200, 'over a reload');
ok($t->kill_engine, 'the engine is killed');
is($t->wait_http('alice', "http://$self/", 10)->status, 200,
    'the saved netmap brings her back');
ok($t->wait_for_log(qr/netmap applied: 1 peer \(saved earlier\)/, 5,
    from => $mark), 'the log says which');

# ---- it comes back with another key and without memory ----

for my $memory ('of a new engine', 'of this engine') {
    $mark = $t->log_mark;
    $control->start;
    is($t->wait_control('web', 'running', 40), 'running',
        "it joins again, $memory");
    ok($control->wait_node('webserver', 5), 'and is known again');
    next if $memory eq 'of this engine';
    $control->stop;
    is($t->wait_control('web', 'waiting', 5), 'waiting',
        'the server is away again');
}
ok($t->wait_for_log(qr/does not know this node any more/, 1, from => $mark),
    'the log says why');
ok(!$t->node_status->{peers}->@*, 'whom the new server does not know is gone');

$t->done_testing;
