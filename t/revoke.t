# Rights that are taken away end what is under way within a second: downloads,
# WebSockets, HTTP/2, idle keepalive connections.  Others go on.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use POSIX qw(strftime);
use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

use constant WITHIN => 1.0;     # seconds, as promised
use constant SIZE => 30_000_000;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my %peer = map { $_->{name} => $_ } (
    $t->node('alice', user => 'alice@example.com'),
    $t->node('bob', user => 'bob@example.com'),
    $t->node('ci', tags => ['tag:dev']),
    $t->node('dave', user => 'dave@example.com'),
    $t->node('frank', tags => ['tag:dev']),
);

sub netmap (%change) {
    my @peers = map { { $peer{$_}->%*, ($change{$_} // {})->%* } }
        grep { !$change{$_} || !$change{$_}{gone} } sort keys %peer;
    $t->netmap('web.json', self => $web, peers => \@peers);
}
netmap();

mkdir $t->testdir . '/html';
$t->write_file('html/big', 'x' x SIZE);
$t->write_file('html/index.html', "hello\n");
$t->write_file('client.pl', <<'EOF');
# client.pl ADDRESS PORT PATH [h2]: one request on a connection that is kept.
# The answer is read slowly.  Prints "at BYTES" now and then while it comes,
# "idle" after it and "closed" at the connection's end.
use v5.36;
use IO::Socket::IP;
my ($addr, $port, $path, $h2) = @ARGV;
my $s = IO::Socket::IP->new(PeerHost => $addr, PeerPort => $port) or die $@;
my ($in, $got, $reads) = ('', 0, 0);
sub closed () { say 'closed'; exit }
sub take ($n) {
    while (length $in < $n) { sysread $s, $in, 16384, length $in or closed() }
    return substr $in, 0, $n, '';
}
sub body ($n) {
    $got += $n;
    return if $n < 1000;
    say "at $got" if $reads++ % 10 == 0;
    select undef, undef, undef, 0.02;
}
sub frame ($type, $flags, $id, $data) {
    syswrite $s, substr(pack('N', length $data), 1)
        . pack('CCN', $type, $flags, $id) . $data or closed();
}
$| = 1;
$SIG{PIPE} = 'IGNORE';
if ($h2) {
    # RFC 9113, section 4.1; RFC 7541, appendix A and section 6.2.2
    syswrite $s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    frame(4, 0, 0, '');
    frame(1, 5, 1, "\x82\x86\x04" . chr(length $path) . $path
        . "\x01" . chr(length $addr) . $addr);
    while (1) {
        my ($len, $type, $flags, $id) = unpack 'NCCN', "\0" . take(9);
        my $data = take($len);
        # RFC 7541, appendix A: ":status: 200"
        die 'it is not answered with 200' if $type == 1 && $data !~ /\A\x88/;
        if ($type == 0 && $len) {
            frame(8, 0, $_, pack 'N', $len) for 0, 1;
            body($len);
        }
        last if $id == 1 && $flags & 1 && $type <= 1;
    }
} else {
    syswrite $s, "GET $path HTTP/1.1\r\nHost: $addr\r\n\r\n";
    my $head = '';
    $head .= take(1) while $head !~ /\r\n\r\n/;
    $head =~ m{\AHTTP/1\.1 200 } or die "answer: $head";
    my ($left) = $head =~ /^Content-Length: (\d+)/mi or die "answer: $head";
    while ($left) {
        my $n = $left < 4096 ? $left : 4096;
        take($n);
        $left -= $n;
        body($n);
    }
}
say 'idle';
1 while sysread $s, $in, 65536;
closed();
EOF

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
worker_processes 1;
events { }
http {
    root %%TESTDIR%%/html;
    keepalive_timeout 60s;
    server {
        tailnet_listen 80;
        tailnet_listen 81 http2;

        location / {
            tailnet_acl accept alice@example.com dave@example.com tag:dev;
            tailnet_acl accept frank bob;
        }
        location /proxied/ {
            tailnet_acl accept alice@example.com dave@example.com tag:dev;
            tailnet_acl accept frank bob;
            proxy_buffering off;
            proxy_pass http://127.0.0.1:8000/;
        }
        location /ws {
            tailnet_acl accept alice@example.com dave@example.com tag:dev;
            tailnet_acl accept frank bob;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_pass http://127.0.0.1:8001;
        }
        location /late/ {
            tailnet_limit_req rate=30r/m burst=1;
            tailnet_acl accept tag:dev;
            alias %%TESTDIR%%/html/;
        }
        location = /expires {
            tailnet_acl accept tag:expires;
            alias %%TESTDIR%%/html/index.html;
        }
        location /open/ { alias %%TESTDIR%%/html/; }
        location /slow/ {
            tailnet_acl accept *;
            alias %%TESTDIR%%/html/;
            limit_rate 100k;
        }
    }
}
EOF
$t->run;
my $script = $INC{'Test/Tailnet.pm'} =~ s/Tailnet\.pm\z/Tailnet/r;
my $echo = $t->spawn('host', [$^X, "$script/websocket.pl", 'serve',
    '127.0.0.1', 8001], name => 'echo');
ok($echo->wait_stdout(qr/^ready$/m, 5), 'the WebSocket server is ready');
my $httpd = $t->start_httpd('host', addr => '127.0.0.1',
    root => $t->testdir . '/html');
$t->start_wgpeer($_, peers => [$web]) for values %peer;
$t->wait_http($_, 'http://100.64.0.1/index.html') for sort keys %peer;

my ($worker) = $t->workers;

# connections(peer): those that nginx still has with the peer.
sub connections ($who) {
    my $r = $t->ctl('exec', 'web', '--', 'ss', '-Htn', 'state', 'established',
        'dst', $peer{$who}{addr}[0]);
    return scalar split /\n/, $r->{stdout};
}

sub upstreams () {
    my $r = $t->run_in('host', 'ss', '-Htnp', 'state', 'established',
        '( dport = :8000 or dport = :8001 )');
    return scalar grep { /pid=$worker,/ } split /\n/, $r->{stdout};
}

sub fds () { scalar(my @fds = glob "/proc/$worker/fd/*") }

# open_all(peer): one connection of each kind, all of them under way.
sub open_all ($who) {
    my %open = map {
        my ($kind, @args) = @$_;
        $kind => $t->spawn($who, [$^X, 'client.pl', '100.64.0.1', @args],
            name => "$who-$kind");
    } ['static', 80, '/big'], ['proxied', 80, '/proxied/big'],
        ['http2', 81, '/big', 'h2'], ['slow', 80, '/slow/big'],
        ['free', 80, '/open/big'], ['idle', 80, '/index.html'],
        ['idleh2', 81, '/index.html', 'h2'];
    $open{websocket} = $t->spawn($who, [$^X, "$script/websocket.pl",
        'connect', '100.64.0.1', 80, '/ws'], name => "$who-websocket");

    for my $kind (sort keys %open) {
        my $word = $kind =~ /idle/ ? qr/^idle$/m : qr/^(?:at|open)\b/m;
        $open{$kind}->wait_stdout($word, 10)
            or fail("$who: $kind did not begin: " . $open{$kind}->stderr);
    }
    return \%open;
}

# at(client): how far it is.
sub at ($client) { ($client->stdout =~ /^at (\d+)/mg)[-1] }

# goes_on(client): true when it receives more.
sub goes_on ($client) {
    my $from = at($client);
    return Test::Tailnet::Process::until_true(15,
        sub { at($client) > $from || !$client->alive }) && $client->alive;
}

sub end_all ($open) { $_->stop for values %$open }

# Bob keeps his connections all the time; those without rules are alice's.
my $bob = open_all('bob');
my $quiet = fds();

for my $case (
    ['alice', { gone => 1 }, 'removed', '"alice@example.com" '
        . '(alice.tailnet.test, 100.64.0.2), reject (unknown peer)', 7],
    ['ci', { tags => ['tag:prod'] }, 'without its tag', '"tag:dev" '
        . '(ci.tailnet.test, 100.64.0.4), reject (no rule matched)', 6],
    ['dave', { user => 'eve@example.com' }, 'of another user now',
        '"dave@example.com" (dave.tailnet.test, 100.64.0.5), '
        . 'reject (no rule matched)', 6],
) {
    my ($who, $change, $name, $line, $closed) = @$case;
    my $open = open_all($who);
    is(connections($who), 8, "$who: eight connections");

    my $mark = $t->log_mark;
    my $start = time;
    netmap($who => $change);
    # What has no rules, or rules that still let in, is left.
    Test::Tailnet::Process::until_true(5,
        sub { connections($who) <= 8 - $closed });
    cmp_ok(time - $start, '<', WITHIN, "$who $name: ended in time");
    is(connections($who), 8 - $closed, "$closed of eight are closed");
    is(() = $t->log_since($mark) =~ /closed the connection of \Q$line\E /g,
        $closed, 'one line for each, with the peer and the reason')
        or diag($t->log_since($mark));
    is(() = $t->log_since($mark) =~ /closed the connection of/g, $closed,
        'and for nobody else');
    if (!$change->{gone}) {
        ok($open->{idle}->wait_stdout(qr/^closed$/m, 1), 'the client sees it');
        ok(goes_on($open->{free}), 'what has no rules goes on');
        ok(goes_on($open->{slow}), 'what another rule lets in goes on');
        is($t->http_get($who, 'http://100.64.0.1/')->status, 403, 'and 403');
    }
    end_all($open);
    netmap();
    ok(Test::Tailnet::Process::until_true(5, sub { upstreams() == 2 }),
        'the sides of the applications are closed') or diag(upstreams());
}

# Frank loses the tag, and another rule of the same place lets him in.
my $frank = open_all('frank');
my $mark = $t->log_mark;
netmap(frank => { tags => ['tag:prod'] }, alice => { gone => 1 });
ok(Test::Tailnet::Process::until_true(5, sub {
    $t->http_get('alice', 'http://100.64.0.1/', timeout => 1)->status == 0
}), 'the change has come');
unlike($t->log_since($mark), qr/closed the connection of "tag/,
    'who keeps his right by another rule stays');
ok($frank->{$_}->alive, "frank: $_") for sort keys %$frank;
end_all($frank);
netmap();

# A request that waits for its turn is not let in by what was true before.
is($t->http_get('ci', 'http://100.64.0.1/late/')->status, 200, 'the first');
my $late = $t->fetch('ci', 'http://100.64.0.1/late/');
ok($t->wait_for_log(qr/delaying request of "tag:dev/, 5), 'the second waits');
netmap(ci => { tags => ['tag:prod'] });
ok(Test::Tailnet::Process::until_true(3,
    sub { $t->http_get('ci', 'http://100.64.0.1/')->status == 403 }),
    'meanwhile the right is gone');
ok($late->alive, 'it still waits');
is($late->response->status, 403, 'and gets what holds then');
netmap();

# A key that expires while it is used, and tailnetd is not there to say so.  Who
# was refused keeps a connection that is nobody's business: not before ci is let
# in again, and not before nginx has seen the end of those that have asked.
ok(Test::Tailnet::Process::until_true(10,
    sub { $t->http_get('ci', 'http://100.64.0.1/')->ok }), 'the right is back');
my $ci = open_all('ci');
$mark = $t->log_mark;
my $until = int(time) + 5;
netmap(ci => { tags => ['tag:dev', 'tag:expires'],
    key_expiry => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime $until) });
ok(Test::Tailnet::Process::until_true(4,
    sub { $t->http_get('ci', 'http://100.64.0.1/expires')->ok }),
    'a key is to expire');
ok(Test::Tailnet::Process::until_true(10, sub { connections('ci') == 8 }),
    'and has eight connections') or diag(connections('ci'));
my $engine = $t->engine;
kill 'STOP', $engine;
ok($t->wait_for_log(qr/closed the connection of "tag:dev" .*has expired/, 8,
    from => $mark), 'an expired key ends connections');
cmp_ok(time, '<', $until + WITHIN, 'when it expires');
cmp_ok(time, '>=', $until, 'not before');
Test::Tailnet::Process::until_true(2, sub { connections('ci') <= 1 });
is(connections('ci'), 1, 'all of them but the one without rules')
    or diag($t->log_since($mark), map { "$_: " . ($ci->{$_}->stdout
        =~ s/.*\n(?=.)//sr) } sort keys %$ci);
kill 'CONT', $engine;
end_all($ci);
netmap();

ok($bob->{$_}->alive, "bob's $_ went on") for sort keys %$bob;
ok(goes_on($bob->{$_}), "and his $_ receives")
    for qw(static proxied http2 slow free);
# TCP may be slow to notice that ci is back and its clients are not.
ok(Test::Tailnet::Process::until_true(20, sub { fds() <= $quiet }),
    'no descriptor is left') or diag(fds() . " and were $quiet");
is(($t->workers)[0], $worker, 'by the same worker');
end_all($bob);

$t->done_testing;
