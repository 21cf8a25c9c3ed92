# The servers of an upstream follow the netmap while nginx runs: before there is
# one, when a node's address, tag or presence changes.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);
use Time::HiRes qw(time);

use constant SOON => 1; # second

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alpha = $t->node('alpha', tags => ['tag:gpu']);
my $beta = $t->node('beta', tags => ['tag:cpu']);
$t->write_file('web.json', '{ "Node": 1 }');

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream alpha { tailnet_server alpha:8000; keepalive 8; }
    upstream slow { tailnet_server alpha:8001; }
    upstream gpu { tailnet_server tag:gpu:8000; keepalive 8; }
    upstream spare {
        tailnet_server alpha:8000;
        server 127.0.0.1:8100 backup;
    }
    server {
        listen 127.0.0.1:8080;
        location ~ ^/(?<up>\w+)$ {
            proxy_pass http://$up;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 500ms;
            add_header X-Upstream $upstream_addr always;
        }
    }
}
EOF
start_app($t, 'host', name => 'lan', port => 8100);
$t->run;

sub asks ($up) { $t->http_get('host', "http://127.0.0.1:8080/$up") }
sub name ($up) {
    my $r = asks($up);
    return $r->status == 200 ? (split ' ', $r->body)[0] : $r->status;
}

# follows(up, sub, what): an answer that fits comes soon, without a reload.
sub follows ($up, $fits, $what) {
    my $start = time;
    my $ok = Test::Tailnet::Process::until_true(SOON,
        sub { local $_ = asks($up); $fits->() });
    ok($ok, $what) or diag(asks($up)->text);
}

my $mark = $t->log_mark;
is(name('alpha'), 502, 'no server before the first netmap');
is(name('spare'), 'lan', 'the backup, where there is one');
like($t->log_since($mark), qr/"alpha" is not known before the first netmap/,
    'the log says why');

$t->netmap('web.json', self => $web, peers => [$alpha, $beta]);
my $wg = $t->start_wgpeer($alpha, peers => [$web]);
$t->start_wgpeer($beta, peers => [$web]);
start_app($t, $_) for qw(alpha beta);
start_app($t, 'alpha', port => 8001,
    answer => 'root ' . $t->testdir . '; limit_rate 200k;');
$t->write_file('slow', 'x' x 10_000_000);

follows('spare', sub { $_->body =~ /^alpha/ }, 'the netmap comes');
is(name('alpha'), 'alpha', 'and the node with it');
is(name('gpu'), 'alpha', 'and the tag');

# The tag moves.
$t->netmap('web.json', self => $web, peers => [
    { %$alpha, tags => [], user => 'a@example.com' },
    { %$beta, tags => ['tag:gpu'] },
]);
follows('gpu', sub { $_->body =~ /^beta/ }, 'the tag has moved');
my %seen;
$seen{name('gpu')}++ for 1 .. 4;
is_deeply(\%seen, { beta => 4 }, 'all of it, kept connections too');

# A node joins.
$t->netmap('web.json', self => $web, peers => [$alpha,
    { %$beta, tags => ['tag:gpu'] }]);
follows('gpu', sub { $_->body =~ /^alpha/ }, 'a node has joined the tag');

# An address changes.
$t->run_in('alpha', qw(ip addr add 100.64.0.77/32 dev mesh0));
$t->netmap('web.json', self => $web,
    peers => [{ %$alpha, addr => ['100.64.0.77'] }, $beta]);
follows('alpha', sub { ($_->header('x-upstream') // '')
    eq '100.64.0.77:8000' && $_->status == 200 }, 'the new address');
is(asks('alpha')->header('x-upstream'), '100.64.0.77:8000',
    'and no other any more');

# It goes offline, and comes back.
$t->netmap('web.json', self => $web, peers => [{ %$alpha, online => 0 },
    $beta]);
follows('spare', sub { $_->body =~ /^lan/ }, 'offline: the backup');
$t->netmap('web.json', self => $web, peers => [{ %$alpha, online => 1 },
    $beta]);
follows('spare', sub { $_->body =~ /^alpha/ }, 'online again');

# It is removed.
$mark = $t->log_mark;
my $slow = $t->fetch('host', 'http://127.0.0.1:8080/slow', timeout => 30);
ok($slow->wait_received(100_000, 5), 'a download begins');
$t->netmap('web.json', self => $web, peers => [$beta]);
follows('alpha', sub { $_->status == 502 }, 'removed: none is left');
ok(Test::Tailnet::Process::until_true(SOON, sub { !$slow->alive }),
    'the download does not wait for what will not come');
my $closed = 'closed the connection to 100.64.0.2:8001, which is the address'
    . ' of no node any more';
like($t->log_since($mark), qr/\[error\].*\Q$closed\E/,
    'the log says why');
is(name('spare'), 'lan', 'the backup');
is(scalar $t->workers(all => 1), 1, 'the worker was the same all the time');

$t->done_testing;
