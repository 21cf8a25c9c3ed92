# The variables: what they hold for whom, where nginx can use them, and that
# they are those of one moment for the whole of a request.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $ci = $t->node('ci', tags => ['tag:ci', 'tag:arm']);
my $router = $t->node('router', tags => ['tag:router'],
    routes => ['192.168.7.0/24']);

sub netmap ($name, @tags) {
    $t->netmap('web.json', self => $web,
        peers => [$alice, { %$ci, tags => [@tags] }, $router],
        domain => 'tailnet.test', users => { 'alice@example.com' =>
            { DisplayName => $name, ProfilePicURL => 'https://pic.test/a' } },
        extra => { PacketFilter => [
            { SrcIPs => ['*'], DstPorts => [
                { IP => '*', Ports => { First => 0, Last => 65535 } }] },
            { SrcIPs => [$alice->{addr}[0]], CapGrant => [
                { Dsts => ['100.64.0.1/32'],
                    CapMap => { 'test/cap' => [{ role => 'admin' }] } }] },
        ] });
}
netmap('Alice Liddell', 'tag:ci', 'tag:arm');
mkdir $t->testdir . '/html';
$t->write_file("html/$_", "$_\n") for qw(index.html page.html);

my @names = qw(user user_name user_pic node node_id host tags ip domain caps
    identity acl self_name self_ip subdomain);
my $headers = join '', map { "add_header X-\u$_ \"\$tailnet_$_\" always; " }
    @names;
my $format = join '|', map { "\$tailnet_$_" } @names;

$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
worker_processes 1;
events { }
http {
    log_format all escape=none '\$uri|$format';
    access_log %%TESTDIR%%/all.log all;
    map \$tailnet_user \$team {
        alice\@example.com  wonderland;
        default            nobody;
    }
    map \$tailnet_tags \$runner { "~(^|,)tag:ci(,|\$)" yes; default no; }
    limit_req_zone \$tailnet_identity zone=stock:1m rate=1r/m;
    root %%TESTDIR%%/html;

    server {
        tailnet_listen 80;
        tailnet_listen 81 http2;
        listen 80;

        location / { $headers }
        location /rules {
            tailnet_acl reject tag:arm;
            tailnet_acl accept *;
            $headers
            try_files /page.html =404;
        }
        location /returns { return 200 "\$tailnet_user \$team \$runner\\n"; }
        location /if {
            if (\$tailnet_user = alice\@example.com) { return 204; }
            if (\$tailnet_tags ~ tag:ci) { return 202 ci; }
            return 401;
        }
        location /stock {
            limit_req zone=stock;
            limit_req_status 429;
            try_files /page.html =404;
        }
        location /key {
            proxy_set_header X-Key "\$tailnet_identity";
            proxy_pass http://127.0.0.1:8000/echo;
        }
        location /frozen {
            set \$early \$tailnet_host;
            proxy_intercept_errors on;
            error_page 404 =200 /later;
            proxy_pass http://127.0.0.1:8002;
        }
        location /later {
            add_header X-Name \$tailnet_user_name always;
            add_header X-Tags \$tailnet_tags always;
            try_files /page.html =404;
        }
    }
}
EOF
$t->run;
$t->start_httpd('host', addr => '127.0.0.1');
$t->start_wgpeer($_, peers => [$web]) for $alice, $ci, $router;
$t->run_in('router', qw(ip addr add 192.168.7.1/32 dev mesh0));
my $mesh = 'http://100.64.0.1';
my $home = 'http://' . $t->underlay('host');
$t->wait_http($_, "$mesh/") for qw(alice ci router);

sub variables ($r) {
    return { map { $_ => $r->header("x-$_") // '' } @names };
}
my %none = map { $_ => '' } @names;
my %self = (self_name => 'web.tailnet.test', self_ip => '100.64.0.1');
my %alice = (
    %none, %self,
    user => 'alice@example.com',
    user_name => 'Alice Liddell',
    user_pic => 'https://pic.test/a',
    node => 'alice.tailnet.test',
    node_id => 'n2TEST',
    host => 'alice',
    ip => '100.64.0.2',
    domain => 'tailnet.test',
    caps => '{"test/cap":[{"role":"admin"}]}',
    identity => 'alice@example.com/tailnet.test/tailnet.test',
);
my %ci = (
    %none, %self,
    node => 'ci.tailnet.test',
    node_id => 'n3TEST',
    host => 'ci',
    ip => '100.64.0.3',
    tags => 'tag:arm,tag:ci',
    domain => 'tailnet.test',
    identity => 'tag:arm,tag:ci/tailnet.test/tailnet.test',
);

# get(who, url): alice, ci, host, or "unknown", who comes through the router.
sub get ($who, $path, @curl) {
    return $t->http_get('router', "$mesh$path",
        curl => ['--interface', '192.168.7.1', @curl]) if $who eq 'unknown';
    return $t->http_get($who, ($who eq 'host' ? $home : $mesh) . $path,
        curl => \@curl);
}

for my $case (
    ['alice', '/', \%alice],
    ['ci', '/', \%ci],
    ['unknown', '/', { %none, %self }],
    ['host', '/', \%none],
    ['alice', '/rules', { %alice, acl => 'accept *' }],
    ['ci', '/rules', { %ci, acl => 'reject tag:arm' }],
    ['unknown', '/rules', { %none, %self, acl => 'reject (unknown peer)' }],
    ['host', '/rules', { %none, acl => 'reject (no rule matched)' }],
) {
    my ($who, $path, $want) = @$case;
    my $got = variables(get($who, $path));
    is_deeply($got, $want, "$who at $path") or diag(explain($got));
    my ($line) = $t->read_log('all.log') =~ /([^\n]*)\n\z/;
    my $file = $path eq '/' || $got->{acl} =~ /^reject/ ? $path : '/page.html';
    is($line =~ s{^/index\.html}{/}r,
        join('|', $file, map { $want->{$_} } @names), 'the same in the log');
}

my $r = $t->http_get('alice', 'http://[fd7a:115c:a1e0::1]/');
is_deeply(variables($r), { %alice, ip => 'fd7a:115c:a1e0::2',
    self_ip => 'fd7a:115c:a1e0::1' }, 'IPv6: addresses of IPv6')
    or diag(explain(variables($r)));

for my $case (
    ['blog.web.tailnet.test', 'blog'],
    ['a.b.web.tailnet.test', 'a.b'],
    ['BLOG.WEB.Tailnet.Test', 'blog'],
    ['blog.web', 'blog'],
    ['web.tailnet.test', ''],
    ['web', ''],
    ['blogweb.tailnet.test', ''],
    ['other.test', ''],
    ['100.64.0.1', ''],
) {
    my ($host, $want) = @$case;
    is(get('alice', '/', '-H', "Host: $host")->header('x-subdomain') // '',
        $want, "\$tailnet_subdomain of $host");
}

# In the places where nginx takes variables.
is(get('alice', '/returns')->body, "alice\@example.com wonderland no\n",
    'map and return');
is(get('ci', '/returns')->body, " nobody yes\n", 'of a tagged node');
is(get('unknown', '/returns')->body, " nobody no\n", 'of nobody');
is(get('host', '/returns')->body, " nobody no\n", 'of a host client');
is(join(' ', map { get($_, '/if')->status } qw(alice ci unknown host)),
    '204 202 401 401', 'if');
like(get('alice', '/key')->body,
    qr{^X-Key: alice\@example\.com/tailnet\.test/tailnet\.test\r$}m,
    'proxy_set_header');
is(join(' ', map { get($_, '/stock')->status }
    qw(alice alice ci ci unknown unknown host host)),
    '200 429 200 429 200 200 200 200',
    'limit_req_zone $tailnet_identity limits identities');

# HTTP/2: each stream is a request of its own.  (curl 7.88 cannot use a
# connection without TLS for a second one.)
my $two = $t->run_in('alice', $^X, '-MIO::Socket::IP', '-e', <<'EOF');
my $s = IO::Socket::IP->new(PeerHost => '100.64.0.1', PeerPort => 81) or die $@;
my ($path, $in) = ('/returns', '');
my $head = "\x82\x86\x04" . chr(length $path) . $path . "\x01\x03web";
sub take { my $n = shift;
    while (length $in < $n) { sysread $s, $in, 4096, length $in or die "end" }
    return substr $in, 0, $n, '' }
syswrite $s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . "\0\0\0\4\0\0\0\0\0"
    . join '', map { substr(pack('N', length $head), 1) . "\1\5"
    . pack('N', $_) . $head } 1, 3, 5, 7, 9;
my $left = 5;
while ($left) {
    my ($len, $type, $flags, $id) = unpack 'NCCN', "\0" . take(9);
    my $data = take($len);
    print "$id: $data" if $type == 0 && $len;
    $left-- if $id && $flags & 1;
}
EOF
is(join('', sort $two->{stdout} =~ /^.*\n/mg),
    join('', map { "$_: alice\@example.com wonderland no\n" } 1, 3, 5, 7, 9),
    'HTTP/2 streams') or diag($two->{output});

# Frozen from the first use to the end, over a redirect; an application that
# answers when it is told.
my $app = $t->spawn('host', [$^X, '-MIO::Socket::IP', '-e', <<'EOF']);
$| = 1;
my $s = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 8002,
    Listen => 5, ReuseAddr => 1) or die $@;
print "ready\n";
while (my $c = $s->accept) {
    my $head = '';
    sysread $c, $head, 4096, length $head or last while $head !~ /\r\n\r\n/;
    print "asked\n";
    select undef, undef, undef, 0.02 while !-e 'go';
    syswrite $c, "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n";
}
EOF
ok($app->wait_stdout(qr/ready/, 5), 'the application is ready');
for my $url ("$mesh/frozen", "$mesh:81/frozen") {
    my @h2 = $url =~ /:81/ ? (curl => ['--http2-prior-knowledge']) : ();
    unlink $t->testdir . '/go';
    netmap('Alice Liddell', 'tag:ci', 'tag:arm');
    ok(Test::Tailnet::Process::until_true(3, sub {
        get('alice', '/later')->header('x-name') eq 'Alice Liddell'
            && get('ci', '/later')->header('x-tags') eq 'tag:arm,tag:ci' }),
        'before');
    my $asked = () = $app->stdout =~ /asked/g;
    my $under_way = $t->fetch('alice', $url, @h2);
    ok(Test::Tailnet::Process::until_true(5,
        sub { (() = $app->stdout =~ /asked/g) > $asked }), 'under way');
    netmap('Alice P. Liddell', 'tag:prod');
    ok(Test::Tailnet::Process::until_true(3, sub {
        get('alice', '/later')->header('x-name') eq 'Alice P. Liddell' }),
        'a new request knows the new name');
    is(get('ci', '/later')->header('x-tags'), 'tag:prod', 'and the new tags');
    $t->write_file('go', '');
    my $r = $under_way->response;
    is($r->status, 200, 'the one under way ends');
    is($r->header('x-name'), 'Alice Liddell',
        'with the name of its time, though it was not asked for before');
    like($t->read_log('all.log'), qr/\|Alice\ Liddell\|[^\n]*\n\z/,
        'in the log too');
}

# A name is no header field.
netmap("Alice\r\nX-Admin: yes", 'tag:prod');
ok(Test::Tailnet::Process::until_true(3, sub {
    get('alice', '/later')->header('x-name') =~ /^Alice(?! P)/ }),
    'a name with a line break');
is(get('alice', '/later')->header('x-name'), 'Alice??X-Admin: yes',
    'is in one line');
is(get('alice', '/later')->header('x-admin'), undef, 'of its own');

$t->done_testing;
