# A download of Tailscale's own client outlives every renewal of a node key:
# before its end, by hand, and that of the client's own.  A key that has expired
# cuts off what is open until it is extended or renewed.
# control_renew_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use POSIX qw(strftime);
use Test::More;
use Test::Tailnet;

# A key with an end is renewed so many seconds before.
use constant AHEAD => 60;

our $headscale;
my $at = $headscale ? '' : '@example.com';
my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'key-web', User => "ops$at", Tags => ['tag:web'],
        Reusable => \1 },
    { Key => 'key-alice', User => "alice$at", Reusable => \1 }]);

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
    access_log %%TESTDIR%%/asked.log;
    server {
        tailnet_listen 80;
        tailnet_acl accept user:alice$at;
        location / { root %%TESTDIR%%/html; }
        location = /stream {
            proxy_pass http://127.0.0.1:8081;
            proxy_buffering off;
        }
    }
}
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/small', "small\n");
$t->write_file('html/big', 'x' x (8 << 20));

# A megabyte per second until SIGTERM, then its checksum.
my $source = $t->spawn('host', ['perl', '-e', <<'EOS'], name => 'source');
use v5.36;
use Digest::SHA;
use IO::Socket::INET;
use Time::HiRes qw(sleep);
my $end;
$SIG{TERM} = sub { $end = 1 };
my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1:8081', Listen => 1,
    ReuseAddr => 1) or die $!;
$| = 1;
say 'ready';
my $c = $l->accept or die $!;
while (<$c>) { last if /^\r$/ }
my $sha = Digest::SHA->new(256);
my $n = 0;
print $c "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n";
while (!$end) {
    my $block = pack 'N*', $n .. $n + 1023;
    $n += 1024;
    $sha->add($block);
    print $c $block or die $!;
    $c->flush or die $!;
    sleep 0.004;
}
close $c;
say $sha->hexdigest;
EOS
$source->wait_stdout(qr/ready/, 10) or BAIL_OUT($source->stderr);

$t->run;
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;

sub until_true { Test::Tailnet::Process::until_true(@_) }

# in(seconds): then, as the server says it.
sub in ($seconds) { strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time + $seconds)) }

is($t->wait_http('alice', "http://$ip/small", 10)->status, 200,
    'alice is served');
like($alice->ping($ip, direct => 1), qr/^pong /, 'directly');
my $loop = $t->start_reqloop('alice', url => "http://$ip:80/small",
    parallel => 2, interval => 20, timeout => 25_000, size => 6);
my $get = $t->fetch('alice', "http://$ip/stream", timeout => 150);
ok($get->wait_received(1 << 18, 20), 'a download has begun');

# goes_on(what): half a megabyte comes, which is more than what was on its way.
sub goes_on ($what) {
    ok($get->wait_received($get->received + (1 << 19), 25),
        "$what: the download goes on") or diag(explain($t->node_status));
}

# gets_key(what, name, change): change gives the node another key.
sub gets_key ($what, $name, $change) {
    my $key = $control->node($name)->{Node}{Key};

    $change->();
    ok($control->wait_node($name, 20, sub ($n) {
        $n->{Node}{Key} ne $key && $n->{Connected};
    }), "$what: another key") or diag($t->read_log);
    goes_on($what);
}

# ---- before its end ----

gets_key('before its end', 'web',
    sub { $control->set('web', KeyExpiry => in(AHEAD + 3)) });
ok($t->wait_for_log(qr/node "web": its key was renewed/, 5), 'it is said');
is($t->node_status->{drop_expired}, 0, 'no packet met an expired key');

# ---- by hand ----

gets_key('by hand', 'web', sub {
    my $r = $t->ctl('rotate', 'web');
    ok($r->{ok}, 'rotate') or diag($r->{output});
});
is($t->node_status->{drop_expired}, 0, 'nor here');

# ---- the client's key ----

gets_key("the client's", 'alice', sub {
    my $r = $alice->tailscale('up', '--login-server', $control->url,
        '--auth-key', 'key-alice', '--hostname', 'alice', '--accept-dns=false',
        '--force-reauth', '--timeout', '20s');
    ok($r->{ok}, 'it logs in anew') or diag($r->{output});
});

# ---- so far ----

my $s = $loop->stop;
is($s->{failures}, 0, "of $s->{requests} requests none has failed")
    or diag(explain($s->{reasons}));
note("gap $s->{max_gap_ms} ms");
$source->signal('TERM');
my $r = $get->response;
ok($r->ok, 'the download comes to its end') or diag($r->text);
$source->wait(5);
like($source->stdout, qr/^\Q@{[$r->sha256]}\E$/m, 'whole and right');
note($r->size . ' bytes');
is(scalar(() = $t->read_log('asked.log') =~ /"GET \/stream .*" 200 /g), 1,
    'in one request');

# ---- a key that is not renewed ----

# expires(): it has, and the auth key is a wrong one.
sub expires () {
    my $mark = $t->log_mark;

    $t->write_file('auth.key', "wrong\n", 0600);
    $control->set('web', KeyExpiry => in(-5));
    ok($t->wait_for_log(
        qr/node "web": its key is not renewed: .* refuses this node: invalid/,
        10, from => $mark), 'without a good auth key: it is said');
    is($t->node_status->{state}, 'expired', 'the status says it, too');
}

my $mark = $t->log_mark;
$get = $t->fetch('alice', "http://$ip/big", rate => '200k', timeout => 60);
ok($get->wait_received(1 << 16, 10), 'a download has begun');
expires();
ok($t->wait_for_log(
    qr/closed the connection of "alice.*this node's key has expired/, 10,
    from => $mark), 'its connection is closed');
$get->stop;
is($t->http_get('alice', "http://$ip/small", timeout => 2)->status, 0,
    'nothing is forwarded');
cmp_ok($t->node_status->{drop_expired}, '>', 0, 'which is counted');

my $key = $control->node('web')->{Node}{Key};
$t->write_file('auth.key', "key-web\n", 0600);
ok($control->wait_node('web', 30, sub ($n) {
    $n->{Node}{Key} ne $key && $n->{Connected};
}), 'a good auth key: it tries again') or diag($t->read_log);
is($t->wait_http('alice', "http://$ip/small", 20)->status, 200,
    'alice is served again');

# ---- one that is extended ----

expires();
$key = $control->node('web')->{Node}{Key};
$control->set('web', KeyExpiry => in(3600));
is($t->wait_http('alice', "http://$ip/small", 20)->status, 200,
    'extended: alice is served again');
is($control->node('web')->{Node}{Key}, $key, 'with the same key');

# ---- at once, where somebody asks ----

expires();
$t->write_file('auth.key', "key-web\n", 0600);
$r = $t->ctl('login', 'web');
like($r->{stdout}, qr/^web: running$/m, 'tailnetctl login')
    or diag($r->{output});
isnt($control->node('web')->{Node}{Key}, $key, 'another key');

$t->done_testing;
