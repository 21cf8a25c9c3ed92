# Who reaches what on nginx's node: without rules the ports that tailnet_listen
# opens and ICMP echo; with rules what they say, live.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $bob = $t->node('bob');
my ($web4, $web6) = $web->{addr}->@*;
my $dir = $t->testdir;

sub rules (@rules) {
    $t->netmap('web.json', self => $web, peers => [$alice, $bob],
        rules => \@rules);
}
$t->netmap('web.json', self => $web, peers => [$alice, $bob]);
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        tailnet_listen 81;
        location / {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
            limit_rate_after 500k;
            limit_rate 500k;
        }
    }
}
EOC
mkdir "$dir/html";
$t->write_file('html/hello', "hello\n");
$t->write_file('html/file.bin', 'x' x 2_000_000);
$t->run;
my $a = $t->start_wgpeer($alice, peers => [$web]);
$t->start_wgpeer($bob, peers => [$web]);

# Services on nginx's node that nginx knows nothing of: HTTP on 9000 and UDP
# echo on 9001, in both families.
my $echo = $t->write_file('echo.pl', <<'EOF2');
use v5.36;
use IO::Socket::IP;
my ($role, $host, $port) = @ARGV;
if ($role eq 'serve') {
    my $socket = IO::Socket::IP->new(Proto => 'udp', LocalHost => $host,
        LocalPort => $port) or die "$host: $@";
    $| = 1;
    print "ready\n";
    while (defined(my $from = $socket->recv(my $text, 2000))) {
        $socket->send($text, 0, $from);
    }
    exit;
}
my $socket = IO::Socket::IP->new(Proto => 'udp', PeerHost => $host,
    PeerPort => $port) or die "$host: $@";
$socket->send('word');
vec(my $ready = '', fileno $socket, 1) = 1;
exit 1 if !select $ready, undef, undef, 0.7;
$socket->recv(my $text, 2000);
exit($text eq 'word' ? 0 : 2);
EOF2
my $httpd = "$FindBin::Bin/lib/Test/Tailnet/httpd.pl";

sub serve ($who, @cmd) {
    my @inside = $who eq 'web' ? ($t->binary('tailnetctl'), '--socket',
        "$dir/nginx-tailnet/admin.sock", 'exec', 'web', '--') : ();
    my $proc = $t->spawn($who eq 'web' ? 'host' : $who, [@inside, $^X, @cmd]);

    $proc->wait_stdout(qr/^ready$/m, 5) or die "@cmd: " . $proc->stderr;
}
ok(Test::Tailnet::Process::until_true(5,
    sub { $t->node_status->{state} eq 'running' }), 'the node runs');
for my $addr ($web4, $web6) {
    serve('web', $httpd, $addr, 9000, "$dir/html");
    serve('web', $echo, 'serve', $addr, 9001);
}

sub url ($addr, $port) {
    return 'http://' . ($addr =~ /:/ ? "[$addr]" : $addr) . ":$port/hello";
}

sub tcp ($who, $addr, $port) {
    return $t->http_get($who, url($addr, $port), timeout => 0.7)->ok;
}

# tries(who, addr): everything at once, as word => what waits for the answer.
sub tries ($who, $addr) {
    my %http = map { $_ => $t->fetch($who, url($addr, $_), timeout => 0.7) }
        80, 81, 9000;
    my %proc = (
        udp => $t->spawn($who, [$^X, $echo, 'ask', $addr, 9001]),
        echo => $t->spawn($who, ['ping', '-c', 1, '-W', 1, $addr]),
    );

    return (
        (map { my $f = $http{$_}; $_ => sub { $f->response->ok } } keys %http),
        (map { my $p = $proc{$_}; $_ => sub { $p->wait(5) == 0 } } keys %proc),
    );
}

# reach(who): what of nginx's node, as words; both families have to agree.
sub reach ($who) {
    my @tries = map { { tries($who, $_) } } $web4, $web6;
    my @by_family = map {
        my $try = $_;
        join ' ', grep { $try->{$_}->() } 80, 81, 9000, 'udp', 'echo';
    } @tries;
    return $by_family[0] eq $by_family[1] ? $by_family[0]
        : "IPv4: $by_family[0], IPv6: $by_family[1]";
}

sub generation () { $t->node_status->{generation} }

# ruled(rules): they are in force when it returns.
sub ruled (@rules) {
    my $before = generation();
    rules(@rules);
    Test::Tailnet::Process::until_true(5, sub { generation() != $before })
        or die 'no new netmap';
}

sub dst (@ports) {
    return [map { ("$web4:$_", "[$web6]:$_") } @ports];
}

tcp($_, $web4, 80) for qw(alice bob);
subtest 'without rules' => sub {
    my $before = $t->node_status->{filter};

    is(reach('alice'), '80 81 echo',
        'the ports of tailnet_listen and echo, nothing else');
    my $after = $t->node_status->{filter};
    cmp_ok($after->{drop_no_rule} - $before->{drop_no_rule}, '>=', 4,
        'what is not let in is counted');
    cmp_ok($after->{accept_rule}, '>', $before->{accept_rule},
        'so is what is');
};

subtest 'no one' => sub {
    ruled();
    is(reach('alice'), '', 'an empty list of rules lets nobody in');
    ok($t->ctl('ping', 'alice')->{ok}, 'answers to nginx come in');
    serve('alice', $echo, 'serve', $alice->{addr}[0], 9001);
    is($t->ctl('exec', 'web', '--', $^X, $echo, 'ask', $alice->{addr}[0],
        9001)->{exit}, 0, 'by UDP too');
    $t->start_httpd('alice', addr => $alice->{addr}[0], root => "$dir/html");
    is($t->ctl('exec', 'web', '--', 'curl', '-s', '-m', 2,
        'http://alice:8000/hello')->{stdout}, "hello\n", 'and by TCP');
};

subtest 'by port, protocol and source' => sub {
    ruled({ src => $alice->{addr}, dst => dst(80, '9000-9001'),
        proto => [6] });
    is(reach('alice'), '80 9000 echo', 'TCP; echo comes with it');
    is(reach('bob'), '', 'not for another source');
    ruled({ src => $alice->{addr}, dst => dst(9001), proto => [17] },
        { src => $bob->{addr}, dst => dst('*') });
    is(reach('alice'), 'udp echo', 'UDP');
    is(reach('bob'), '80 81 9000 udp echo', 'all ports');
    ruled({ src => ['100.64.0.0/10'], dst => ["$web4:80"] });
    is(reach('alice'), 'IPv4: 80 echo, IPv6: ', 'one family');
};

subtest 'rules change' => sub {
    ruled({ src => ['*'], dst => dst(80) });
    my $download = $t->fetch('alice', "http://$web4/file.bin", timeout => 20);
    ok($download->wait_received(100_000, 5), 'a download');
    ruled({ src => $bob->{addr}, dst => dst(80) });
    ok(!tcp('alice', $web4, 80), 'alice may not any more');
    ok(tcp('bob', $web4, 80), 'bob may');
    # As in Tailscale, rules are for connections that begin.
    ok($download->response->ok, 'what was begun comes to its end');
    ruled({ src => $alice->{addr}, dst => dst(80) });
    ok(tcp('alice', $web4, 80), 'alice may again');
    ok(!tcp('bob', $web4, 80), 'bob may not');
    my $before = generation();
    $t->netmap('web.json', self => $web, peers => [$alice, $bob]);
    ok(Test::Tailnet::Process::until_true(5,
        sub { generation() != $before }), 'rules are taken out');
    ok(tcp('bob', $web4, 81), 'it is as without any');
    ok(!tcp('bob', $web4, 9000), 'in both ways');
};

subtest 'listeners come and go' => sub {
    my $file = "$dir/nginx.conf";
    my $text = Test::Tailnet::Process::slurp($file);
    $t->write_file('nginx.conf', $text =~ s/tailnet_listen 81;//r);
    ok($t->reload(drain => 10), 'port 81 is closed');
    ok(Test::Tailnet::Process::until_true(5, sub { !tcp('bob', $web4, 81) }),
        'and shut for peers');
    $t->write_file('nginx.conf', $text =~ s/(tailnet_listen) 81;/$1 82;/r);
    ok($t->reload, 'port 82 is opened');
    ok(Test::Tailnet::Process::until_true(5, sub { tcp('bob', $web4, 82) }),
        'and open for peers');
};

my %count = $t->node_status->{filter}->%*;
is($count{$_}, 0, "no $_") for qw(drop_header drop_length drop_jailed
    drop_not_local);

$t->done_testing;
