# The tests' own tools, without nginx: two WireGuard peers and a bad path
# between them.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA;
use Test::More;
use Test::Tailnet;

use constant SIZE => 2_000_000;

my $t = Test::Tailnet->new(needs => [qw(wgpeer impair reqloop)]);

my $alice = $t->node('alice');
my $bob = $t->node('bob');
my $psk = $t->psk;

# Bytes that no half of the file repeats.
my $seed = pack 'N*', map { ($_ * 2654435761) & 0xffffffff } 1 .. SIZE / 4;
my $file = $t->write_file('file.bin', $seed);
my $sha256 = Digest::SHA->new(256)->addfile($file)->hexdigest;

# alice --- lossy --- bob: neither knows where the other really is.  With this
# seed the first handshake gets through.
my $lossy = $t->start_impair(name => 'lossy', to => $bob, loss => 5,
    reorder => 3, dup => 1, delay => 1, jitter => 1, seed => 7);
my $b = $t->start_wgpeer($bob,
    peers => [{ %$alice, endpoint => '', psk => $psk }]);
my $a = $t->start_wgpeer($alice, peers => [{
    %$bob, endpoint => $lossy->endpoint, psk => $psk, keepalive => 1,
}]);
$t->start_httpd('bob', addr => '100.64.0.2', port => 8000);
$t->start_httpd('bob', addr => 'fd7a:115c:a1e0::2', port => 8000);

my $first = $t->wait_http('alice', 'http://100.64.0.2:8000/echo', 15);
is($first->status, 200, 'answered over IPv4') or diag($first->text);
like($first->body, qr{^GET /echo HTTP/1.1\r\nHost: 100.64.0.2:8000\r\n},
    'the request came as it was sent');
is($first->header('content-length'), $first->size, 'headers are read');
ok($a->wait_handshake($bob, 1), 'alice has a handshake');
ok($b->handshake($alice) > 0, 'so has bob');

my $download = $t->fetch('alice', 'http://100.64.0.2:8000/file.bin',
    rate => '800k', timeout => 30);
ok($download->wait_received(SIZE / 4, 15), 'a download is under way');
my $before = $b->peer_status($alice)->{endpoint};
is($before =~ s/:\d+\z//r, $lossy->endpoint =~ s/:\d+\z//r,
    'bob sees the relay');
ok($download->alive, 'the download is not over yet');
$a->rebind(5000);
is($a->status->{listen_port}, 5000, 'alice moved to another port');

my $whole = $download->response;
ok($whole->ok, 'the download was finished') or diag($whole->text);
is($whole->size, SIZE, 'with all its bytes');
is($whole->sha256, $sha256, 'and the right ones');
isnt($b->peer_status($alice)->{endpoint}, $before,
    'bob follows alice to her new address');

my $loop = $t->start_reqloop('alice', parallel => 2, count => 20,
    url => 'http://[fd7a:115c:a1e0::2]:8000/file.bin', timeout => 1,
    first => 0)->wait;
is($loop->{failures}, 20, 'requests out of time are failures');
like($loop->{reasons}[0]{reason}, qr/^timeout: /, 'with the reason');

$lossy->set(loss => 0, reorder => 0, dup => 0);
my $echo = $t->http_get('alice', 'http://[fd7a:115c:a1e0::2]:8000/echo',
    headers => ['X-Word: mesh']);
like($echo->body, qr/^X-Word: mesh\r$/m, 'answered over IPv6')
    or diag($echo->text);
$loop = $t->start_reqloop('alice', parallel => 4, headers => ['A: b'],
    url => 'http://100.64.0.2:8000/echo', interval => 5);
ok($t->http_get('alice', 'http://100.64.0.2:8000/echo')->ok,
    'answered beside a loop');
$loop = $loop->stop;
is($loop->{failures}, 0, 'no request of a loop fails on a good path')
    or diag(explain($loop));
ok($loop->{ok} >= 4, 'and there were some');

$t->link_down('lossy');
is($t->http_get('alice', 'http://100.64.0.2:8000/echo', timeout => 1)->exit,
    28, 'a pulled cable stops everything');
$t->link_up('lossy');
is($t->wait_http('alice', 'http://100.64.0.2:8000/echo')->status, 200,
    'until it is back');

my $stats = $lossy->stop;
my ($in, $out) = (0, $stats->{queued});
for my $direction (qw(up down)) {
    my $c = $stats->{$direction};
    my $share = 100 * $c->{lost} / $c->{received};

    cmp_ok($c->{received}, '>', 500, "many datagrams went $direction");
    ok($share > 1.5 && $share < 8, "a fitting share was lost: $share %");
    ok($c->{reordered} > 0, 'some were reordered');
    ok($c->{duplicated} > 0, 'some were doubled');
    $in += $c->{received} + $c->{duplicated};
    $out += $c->{$_} for qw(sent lost overflow orphaned send_errors);
}
is($out, $in, 'every datagram is accounted for');
is($stats->{clients}, 2, 'the relay met two addresses of alice');

$t->done_testing;
