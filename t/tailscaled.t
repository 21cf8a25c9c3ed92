# nginx and Tailscale's own tailscaled in one tailnet: who asks is known, pings
# come back both ways, and a new engine carries on.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA ();
use JSON::PP qw(decode_json);
use Test::More;
use Test::Tailnet;

use constant SIZE => 12 << 20;

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 },
    { Key => 'key-bob', User => 'bob@example.com' },
    { Key => 'key-ci', User => 'ops@example.com', Tags => ['tag:ci'] }]);

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
    upstream box {
        tailnet_server box:8000;
    }
    server {
        tailnet_listen 80;
        add_header X-User \$tailnet_user;
        add_header X-Tags \$tailnet_tags;
        add_header X-Node \$tailnet_node;
        location / {
            tailnet_acl accept alice\@example.com;
            root %%TESTDIR%%/html;
        }
        location /tag/ {
            tailnet_acl accept tag:ci;
            alias %%TESTDIR%%/html/;
        }
        location /who/ {
            tailnet_acl accept *;
            alias %%TESTDIR%%/html/;
            add_header Who-node \$tailnet_node;
            add_header Who-host \$tailnet_host;
            add_header Who-node_id \$tailnet_node_id;
            add_header Who-user \$tailnet_user;
            add_header Who-user_name \$tailnet_user_name;
            add_header Who-user_pic \$tailnet_user_pic;
            add_header Who-tags \$tailnet_tags;
            add_header Who-ip \$tailnet_ip;
            add_header Who-caps \$tailnet_caps;
        }
    }
    server {
        listen 127.0.0.1:8080;
        location / { proxy_pass http://box; }
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $body = join '', map { pack('N', $_) x 1024 } 1 .. SIZE / 4096;
$t->write_file('html/big', $body);

# ---- everybody joins ----

$t->run;
my %key = (alice => 'alice', box => 'alice', bob => 'bob', ci => 'ci');
my %peer = map { $_ => $t->start_tailscaled($_, control => $control,
    key => "key-$key{$_}", wait => 0) } sort keys %key;
$_->wait_login for values %peer;
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
my $url = "http://$ip";
my $direct = qr/ via (?:10\.77\.0\.1|\[fd77::1\]):41641 /;
$t->start_httpd('box', root => $t->testdir . '/html');

# ---- who asks ----

my $r = $t->wait_http('alice', "$url/", 5);
is($r->status, 200, 'alice is let in') or diag($r->text, $t->read_log);
is($r->header('x-user'), 'alice@example.com', 'by her login');
is($r->header('x-node'), 'alice.tailnet.test', 'from her node');
is($t->wait_http('bob', "$url/", 5)->status, 403, 'bob is not');
$r = $t->wait_http('ci', "$url/tag/", 5);
is($r->status, 200, 'a tagged node is, by its tag');
is($r->header('x-tags'), 'tag:ci', 'which is known');
is($r->header('x-user'), undef, 'and is nobody');
is($t->http_get('alice', "$url/tag/")->status, 403, 'alice has no tag');
$r = $t->http_get('alice', 'http://['
    . ($web->{Node}{Addresses}[1] =~ s{/.*}{}r) . ']/');
is($r->status, 200, 'alice by IPv6') or diag($r->text);

# ---- pings ----

for my $type (qw(disco TSMP ICMP)) {
    like($peer{alice}->ping($ip, type => $type), qr/^pong from web /,
        "tailscale ping: $type");
}
like($peer{alice}->ping($ip, direct => 1),
    $direct, 'by the direct path');
for my $who (qw(alice ci)) {
    $r = $t->ctl('ping', $who);
    like($r->{output}, qr/^pong from \Q@{[$peer{$who}->ip]}\E via /,
        "tailnetctl ping $who");
}

# ---- who is that ----

# What both say, in tailnetctl's terms.
sub theirs ($doc) {
    my $n = $doc->{Node};
    my $tagged = $n->{Tags} && $n->{Tags}->@*;

    return {
        node => $n->{Name} =~ s/\.\z//r,
        host => $n->{ComputedName},
        node_id => $n->{StableID},
        addresses => [map { s{/.*}{}r } $n->{Addresses}->@*],
        user => $tagged ? '' : $doc->{UserProfile}{LoginName},
        user_name => $tagged ? '' : $doc->{UserProfile}{DisplayName},
        user_pic => $tagged ? '' : $doc->{UserProfile}{ProfilePicURL} // '',
        tags => [sort(($n->{Tags} // [])->@*)], # as ours are
        shared => $n->{Sharer} ? JSON::PP::true : JSON::PP::false,
        expired => $n->{Expired} ? JSON::PP::true : JSON::PP::false,
    };
}

for my $who (qw(alice box bob ci web)) {
    my $addr = $who eq 'web' ? $ip : $peer{$who}->ip;
    my $ours = $t->ctl('--json', 'whois', $addr);
    # Of peers bob knows what nginx knows; of himself alice knows it.
    my $doc = $peer{$who eq 'bob' ? 'alice' : 'bob'}->whois($addr);
    is_deeply(eval { decode_json($ours->{stdout}) }, theirs($doc),
        "whois $who: the same as tailscaled's")
        or diag(explain($doc), $ours->{output});
}

# The same from nginx's snapshot, of those who ask, and what they may do: the
# server grants everybody something.
for my $who (qw(alice box bob ci)) {
    my $doc = $peer{$who eq 'bob' ? 'alice' : 'bob'}->whois($peer{$who}->ip);
    my $theirs = theirs($doc);
    my %want = (map({ $_ => $theirs->{$_} }
        qw(node host node_id user user_name user_pic)),
        tags => join(',', $theirs->{tags}->@*), ip => $peer{$who}->ip,
        caps => $doc->{CapMap});
    my %got;

    $r = $t->wait_http($who, "$url/who/", 20);
    $got{$_} = $r->header("who-$_") // '' for keys %want;
    $got{caps} = eval { decode_json($got{caps}) } // $got{caps};
    ok(keys(($doc->{CapMap} // {})->%*) > 0, "$who may do something");
    is_deeply(\%got, \%want, "variables of $who: the same as tailscaled's")
        or diag(explain(\%got, \%want));
}

# Some of another tailnet, whom a user there has shared with us: a user's, one
# with everything, a tagged one, and one whose key has expired.
my %of_other = (
    99 => { User => 990, Name => 'nas.other.example.' },
    98 => { User => 991, Name => 'own.other.example.' },
    97 => { User => 992, Tags => ['tag:probe', 'tag:lab'],
        Name => 'probe.other.example.' },
    96 => { User => 990, Name => 'old.other.example.',
        KeyExpiry => '2024-01-01T00:00:00Z', Expired => \1 });
my %shared = (
    PeersChanged => [map { {
        ID => $_ + 0, StableID => "n$_", Sharer => 991, Key => ($t->genkey)[1],
        Addresses => ["100.64.0.$_/32", "fd7a:115c:a1e0::$_/128"],
        AllowedIPs => ["100.64.0.$_/32", "fd7a:115c:a1e0::$_/128"],
        MachineAuthorized => \1, Hostinfo => { Hostname => 'its-own-name' },
        $of_other{$_}->%* } } sort keys %of_other],
    UserProfiles => [
        { ID => 990, LoginName => 'zoe@other.example', DisplayName => 'Zoe' },
        { ID => 991, LoginName => 'yan@other.example', DisplayName => 'Yán',
            ProfilePicURL => 'https://pics.test/yan.png' },
        { ID => 992, LoginName => 'tagged-devices',
            DisplayName => 'Tagged Devices' }]);
$control->message($_, \%shared) for qw(web alice);
for my $n (sort { $b <=> $a } keys %of_other) {
    for my $addr ("100.64.0.$n", "fd7a:115c:a1e0::$n") {
        my ($ours, $doc) = ({});
        Test::Tailnet::Process::until_true(10, sub {
            $ours = eval { decode_json(
                $t->ctl('--json', 'whois', $addr)->{stdout}) } // {};
            $doc = $peer{alice}->whois($addr);
            return $ours->{node} && $doc;
        });
        is_deeply($ours, theirs($doc),
            "whois of a shared node, $of_other{$n}{Name}: the same")
            or diag(explain($doc, $ours));
    }
}

# ---- an upstream by its MagicDNS name ----

$r = $t->http_get('host', 'http://127.0.0.1:8080/index.html');
is($r->status, 200, 'a service behind tailscaled, by name')
    or diag($r->text, $t->read_log);
is($r->body, "hello\n", 'answers') or diag($r->text, $r->body);
$r = $t->http_get('host', 'http://127.0.0.1:8080/big');
is($r->sha256, Digest::SHA::sha256_hex($body), 'much of it, too')
    or diag($r->text);

# ---- the engine dies under a download ----

my $loop = $t->start_reqloop('alice', url => "http://$ip:80/",
    parallel => 4, interval => 5, timeout => 5000, size => 6);
$t->expect_alert(qr{engine \d+ was killed by signal 9});
my $get = $t->fetch('alice', "$url/big", rate => '6M', timeout => 20);
ok($get->wait_received(1 << 20, 10), 'a download has begun');
ok($t->kill_engine, 'the engine is killed');
$r = $get->response;
ok($r->ok, 'the download comes to its end') or diag($r->text);
is($r->sha256, Digest::SHA::sha256_hex($body), 'whole and right');

my $s = $loop->stop;
is($s->{failures}, 0, "of alice's $s->{requests} requests none has failed")
    or diag(explain($s->{reasons}));
cmp_ok($s->{max_gap_ms}, '<', 2000, 'and none had to wait for 2 s');
note("gap $s->{max_gap_ms} ms");
like($peer{alice}->ping($ip, direct => 1), $direct,
    'the path is direct again');

$t->done_testing;
