# A tailscaled peer whose UDP is blocked is served by the relay and directly
# again when the block is lifted, without a failed request, although engine and
# relay die meanwhile.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA ();
use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

use constant SIZE => 6 << 20;

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 }]);

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
        add_header X-User \$tailnet_user;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $body = join '', map { pack('N', $_) x 1024 } 1 .. SIZE / 4096;
$t->write_file('html/big', $body);
my $sha = Digest::SHA::sha256_hex($body);

$t->run;
my %peer = map { $_ => $t->start_tailscaled($_, control => $control,
    key => 'key-alice', wait => 0) } qw(alice carol);
$_->wait_login for values %peer;
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;

# tailscaled trusts a direct path for 6.5 s after the last answer, and TCP's own
# patience doubles meanwhile.
sub loop ($who) {
    return $t->start_reqloop($who, url => "http://$ip:80/", parallel => 2,
        interval => 10, timeout => 25_000, size => 6);
}

sub unharmed ($loop, $what) {
    my $s = $loop->stop;

    is($s->{failures}, 0, "$what: none of $s->{requests} requests failed")
        or diag(explain($s->{reasons}));
    note("$what: gap $s->{max_gap_ms} ms, slowest request $s->{max_ms} ms");
    return $s;
}

# ---- direct ----

is($t->wait_http($_, "http://$ip/", 5)->status, 200, "$_ is served")
    for qw(alice carol);
ok($t->wait_path('alice', 'direct', 5), 'directly');

# ---- UDP is blocked while requests run ----

my $loop = loop('alice');
my $others = loop('carol');
my $get = $t->fetch('alice', "http://$ip/big", rate => '400k', timeout => 60);
ok($get->wait_received(100_000, 10), 'a download has begun');
$peer{alice}->block_udp;
ok($t->wait_path('alice', 'relay', 15), 'UDP blocked: by the relay')
    or diag($t->ctl('--json', 'status')->{stdout});
like($peer{alice}->ping($ip), qr/^pong from web .* via DERP\(test\)/,
    'tailscale ping: by the relay');
like($t->ctl('ping', 'alice')->{output}, qr/^pong from .* via /,
    'tailnetctl ping: answered');
is($t->http_get('alice', "http://$ip/")->header('x-user'),
    'alice@example.com', 'she is still known');

# ---- the engine dies meanwhile ----

$t->expect_alert(qr{engine \d+ was killed by signal 9});
my $begin = time;
ok($t->kill_engine, 'the engine is killed');
is($t->http_get('alice', "http://$ip/")->status, 200,
    'the next one finds her by the relay');
cmp_ok(time - $begin, '<', 2, 'within 2 s');

# ---- the relay dies and comes back ----

my $mark = $t->log_mark;
$control->relay(0);
ok($t->wait_for_log(qr/relay \S+ of region 1 \(test\), its home: /, 5,
    from => $mark), 'the relay is gone: the log says so');
is($t->http_get('alice', "http://$ip/", timeout => 1)->status, 0,
    'no way to alice');
$begin = time;
$control->relay(1);
is($t->wait_http('alice', "http://$ip/", 15)->status, 200,
    'the relay is back: alice is served');
note(sprintf 'after %.1f s', time - $begin);

# ---- UDP passes again ----

$peer{alice}->unblock_udp;
ok($t->wait_path('alice', 'direct', 30), 'unblocked: direct within 30 s');
unharmed($loop, 'alice');
my $s = unharmed($others, 'carol, direct');
cmp_ok($s->{max_gap_ms}, '<', 2000, 'the engine is all she waited for');
my $r = $get->response;
ok($r->ok, 'the download came to its end') or diag($r->text);
is($r->sha256, $sha, 'whole and right');

$t->done_testing;
