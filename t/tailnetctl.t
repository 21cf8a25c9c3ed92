# tailnetctl beside nginx: keys, status, ping, whois, exec, and what it says when
# something is wrong.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $runner = $t->node('runner', tags => ['tag:ci', 'tag:build']);
my $silent = $t->node('silent');
my $other = $t->nginx_node('other', port => 41642);
my $lost = $t->node('lost');

$t->netmap('web.json', self => $web,
    peers => [$alice, $runner, $silent, { %$lost, endpoints => [] }],
    users => { 'alice@example.com' => {
        DisplayName => 'Alice Liddell',
        ProfilePicURL => 'https://pics.example/a.png',
    } });
$t->netmap('other.json', self => $other, peers => []);
my $config = <<'EOC';
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen web:80;
        location / {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
        }
    }
}
EOC
$t->write_config($config);
mkdir $t->testdir . '/html';
$t->write_file('html/hello', "hello\n");

# ctl(): as the library's, without a socket.
sub plain (@args) {
    return $t->run_in('host', $t->binary('tailnetctl'), @args);
}

sub json ($text) { JSON::PP::decode_json($text) }

# fails(result, exit, regex, name): nothing but a reason on standard error.
sub fails ($got, $exit, $regex, $name) {
    is($got->{exit}, $exit, "$name: exit $exit");
    like($got->{stderr}, $regex, "$name: the reason");
    is($got->{stdout}, '', "$name: no output");
    is(scalar(() = $got->{stderr} =~ /\n/g), 1, "$name: in one line")
        if $exit == 1;
}

subtest 'keys' => sub {
    my ($one, $two) = map { plain('genkey')->{stdout} } 1 .. 2;
    my $form = qr/\Aprivkey:([0-9a-f]{64})\n\z/;

    like($one, $form, 'genkey prints a key');
    isnt($one, $two, 'another one each time');
    for my $key ($one =~ $form ? pack('H*', $1) : '', $alice->{private}) {
        # RFC 8410: what stands before the 32 bytes of an X25519 private key.
        my $der = $t->write_file('key.der',
            pack('H*', '302e020100300506032b656e04220420') . $key);
        my $public = substr Test::Tailnet::Net::output('openssl', 'pkey',
            '-inform', 'DER', '-in', $der, '-pubout', '-outform', 'DER'), -32;
        for my $text ('privkey:' . unpack('H*', $key),
            MIME::Base64::encode_base64($key, '')) {
            my $file = $t->write_file('key.txt', "$text\n", 0600);
            my $got = $t->run_in('host', 'sh', '-c', 'exec "$0" pubkey <"$1"',
                $t->binary('tailnetctl'), $file);
            is($got->{stdout}, 'nodekey:' . unpack('H*', $public) . "\n",
                'pubkey says what openssl says');
            $got = $t->run_in('host', 'sh', '-c',
                'exec "$0" pubkey --base64 <"$1"', $t->binary('tailnetctl'),
                $file);
            is($got->{stdout}, MIME::Base64::encode_base64($public, '') . "\n",
                'also in the form of wg(8)');
        }
    }
    my $file = $t->write_file('key.txt', "privkey:zz\n");
    my $got = $t->run_in('host', 'sh', '-c', 'exec "$0" pubkey <"$1"',
        $t->binary('tailnetctl'), $file);
    fails($got, 1, qr/\Atailnetctl: "privkey:" and 64 hexa/, 'no key');
    fails(plain('genkey', 'x'), 2, qr/takes no arguments/, 'genkey x');
};

subtest 'without a tailnetd' => sub {
    fails(plain('status'), 1,
        qr{\Atailnetctl: no tailnetd is running.*--socket PATH}, 'no socket');
    fails($t->ctl('status'), 1,
        qr{\Atailnetctl: \S+/admin\.sock: No such file}, 'a wrong socket');
    fails(plain('--socket', '/' . 'x' x 200, 'status'), 1,
        qr/longer than a socket's path can be/, 'a long path');
    my $script = 'mount -t tmpfs none /run && mkdir -m 0700 /run/nginx-tailnet'
        . ' && mkdir -p /run/me/tailnetd && : > /run/me/tailnetd/admin.sock'
        . ' && exec setpriv --reuid 65534 --clear-groups "$0" status';
    for my $case (['', 'nginx-tailnet'], ['/run/me', 'me/tailnetd']) {
        my ($runtime, $place) = @$case;

        fails($t->run_in('host', 'unshare', '-m', 'env',
            "XDG_RUNTIME_DIR=$runtime", 'sh', '-c', $script,
            $t->binary('tailnetctl')), 1,
            qr{: /run/$place/admin\.sock: Permission denied}, 'not root');
    }
    fails(plain('stats'), 2, qr/unknown command "stats"/, 'no such command');
    fails(plain(), 2, qr/\Ausage: /, 'no command');
    for my $help (['--help'], ['-h'], ['help'], ['status', '--help']) {
        my $got = plain(@$help);
        like($got->{stdout}, qr/\Ausage: tailnetctl.*genkey/s, "@$help");
        is($got->{exit}, 0, 'is no failure');
    }
};

$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alice, $runner;
is($t->http_get($_, 'http://100.64.0.1/hello')->status, 200, "$_ is served")
    for qw(alice runner);

subtest 'status' => sub {
    my $got = $t->ctl('status');
    my @lines = split /\n/, $got->{stdout};

    ok($got->{ok}, 'a table');
    is(shift @lines, 'web: running', 'of one node');
    like(shift @lines, qr/^  100\.64\.0\.1 +web\.tailnet\.test \(this node\)$/,
        'itself');
    is(shift(@lines) =~ s/ \d\S* +\d\S* +\d+ s ago\z//r =~ s/ +/ /gr,
        " 100.64.0.2 alice.tailnet.test alice\@example.com"
        . " $alice->{endpoints}[0] ", 'a person');
    is(shift(@lines) =~ s/ \d\S* +\d\S* +\d+ s ago\z//r =~ s/ +/ /gr,
        ' 100.64.0.3 runner.tailnet.test tag:build,tag:ci'
        . " $runner->{endpoints}[0] ", 'tags');
    like(shift @lines, qr/^  100\.64\.0\.4 .* 0B +0B +never$/,
        'a peer that was not there yet');
    like(shift @lines, qr/^  100\.64\.0\.6 .* -  .* never$/,
        'one without an endpoint');
    is(scalar @lines, 0, 'no more');

    my $doc = json($t->ctl('--json', 'status', 'web')->{stdout});
    my ($node) = $doc->{nodes}->@*;
    is($node->{name}, 'web', 'JSON');
    is($node->{state}, 'running', 'state');
    is($node->{domain}, 'tailnet.test', 'domain');
    my $peer = $node->{peers}[0];
    is($peer->{name}, 'alice.tailnet.test', 'the first peer');
    is_deeply($peer->{addresses}, $alice->{addr}, 'its addresses');
    is($peer->{endpoint}, $alice->{endpoints}[0], 'its endpoint');
    cmp_ok($peer->{$_}, '>', 100, $_) for qw(rx_bytes tx_bytes);
    is($node->{peers}[2]{handshake_ms_ago}, undef, 'never heard of');
    cmp_ok($node->{wireguard}{rx_packets}, '>', 4, 'counters of WireGuard');
    ok(exists $node->{$_}, "counters: $_") for qw(pump filter);
    fails($t->ctl('status', 'nobody'), 1, qr/no node "nobody"/, 'no such node');
    fails($t->ctl('status', 'x' x 100), 1, qr/no node "xxx/, 'a long name');
    fails($t->ctl('status', 'web', 'other'), 2, qr/at most one argument/,
        'two nodes');
};

subtest 'ping' => sub {
    for my $who ('alice', 'alice.tailnet.test', 'ALICE', $alice->{addr}->@*,
        'web/alice', 'web/100.64.0.2') {
        my $got = $t->ctl('ping', $who);

        ok($got->{ok}, "$who answers") or diag($got->{output});
        my $from = $who =~ /:/ ? $alice->{addr}[1] : '100.64.0.2';
        is($got->{stdout} =~ s/\d+\.\d\d ms\n\z/N ms/r,
            "pong from $from via $alice->{endpoints}[0] in N ms", 'a pong');
    }
    my $doc = json($t->ctl('--json', 'ping', 'runner')->{stdout});
    is($doc->{address}, '100.64.0.3', 'JSON');
    cmp_ok($doc->{ms}, '>', 0, 'takes some time');
    my $got = $t->ctl('ping', '-c', 2, 'alice');
    is(scalar(() = $got->{stdout} =~ /^pong/mg), 2, 'two pings');

    $got = $t->ctl('ping', 'silent');
    is($got->{exit}, 1, 'a peer that does not answer');
    is($got->{stdout}, "100.64.0.4: no answer\n", 'is reported');
    is($t->ctl('ping', 'lost')->{stdout},
        "100.64.0.6: no answer, and no endpoint to ask at\n",
        'so is one that nobody knows where to find');
    fails($t->ctl('ping', 'nobody'), 1,
        qr/no peer "nobody" in the tailnet of node "web"/, 'no such name');
    $got = $t->ctl('ping', '100.64.9.9');
    is($got->{exit}, 1, 'an address that nobody has');
    like($got->{stdout}, qr/\A100\.64\.9\.9: no peer has this address\n\z/,
        'is told from silence');
    fails($t->ctl('ping', 'nonode/alice'), 1, qr/no node "nonode"/,
        'no such node');
    fails($t->ctl('ping', @$_), 2, qr/ping takes/, "ping @$_")
        for [], ['a', 'b'], ['-c', '0', 'alice'], ['-c', 'x', 'alice'],
        ['-c', '3x', 'alice'];
};

subtest 'whois' => sub {
    is($t->ctl('whois', '100.64.0.2')->{stdout}, <<'EOT', 'a person');
node       alice.tailnet.test
addresses  100.64.0.2 fd7a:115c:a1e0::2
user       alice@example.com (Alice Liddell)
EOT
    is($t->ctl('whois', 'web/fd7a:115c:a1e0::3')->{stdout}, <<'EOT', 'tags');
node       runner.tailnet.test
addresses  100.64.0.3 fd7a:115c:a1e0::3
tags       tag:build,tag:ci
EOT
    is_deeply(json($t->ctl('--json', 'whois', '100.64.0.2')->{stdout}), {
        node => 'alice.tailnet.test',
        host => 'alice',
        node_id => 'n2TEST',
        addresses => ['100.64.0.2', 'fd7a:115c:a1e0::2'],
        user => 'alice@example.com',
        user_name => 'Alice Liddell',
        user_pic => 'https://pics.example/a.png',
        tags => [],
        shared => JSON::PP::false,
        expired => JSON::PP::false,
    }, 'JSON of a person');
    my $doc = json($t->ctl('--json', 'whois', '100.64.0.3')->{stdout});
    is_deeply($doc->{tags}, ['tag:build', 'tag:ci'], 'JSON of tags');
    is($doc->{user}, '', 'no user then');
    fails($t->ctl('whois', '100.64.9.9'), 1,
        qr/nobody has this address in the tailnet of node "web"/, 'unknown');
    fails($t->ctl('whois', 'alice'), 1, qr/"alice" is no address/, 'a name');
    fails($t->ctl('whois', 'nonode/100.64.0.2'), 1, qr/no node "nonode"/,
        'no such node');
    fails($t->ctl('whois'), 2, qr/takes one argument/, 'no argument');
};

# Nor does it need the status of a hundred thousand peers to know its node.
subtest 'whois while the engine is busy' => sub {
    my $engine = $t->engine;

    kill 'STOP', $engine;
    like($t->ctl('whois', '100.64.0.2')->{stdout}, qr/^node +alice\./,
        'it is not asked');
    kill 'CONT', $engine;
};

subtest 'exec' => sub {
    my $hosts = Test::Tailnet::Process::slurp('/etc/hosts');
    my $inside = $t->ctl('exec', 'web', '--', 'cat', '/etc/hosts');

    like($inside->{stdout}, qr/^127\.0\.0\.1 localhost$/m, 'localhost');
    like($inside->{stdout}, qr/^$_ alice\.tailnet\.test alice$/m, "$_: alice")
        for $alice->{addr}->@*;
    is(Test::Tailnet::Process::slurp('/etc/hosts'), $hosts,
        "the machine's hosts file is as it was");
    is_deeply([glob '/tmp/tailnetctl-hosts.*'], [], 'nothing is left in /tmp');

    $t->start_httpd('alice', addr => '100.64.0.2', port => 8000,
        root => $t->testdir . '/html');
    my $got = $t->ctl('exec', 'web', '--', 'curl', '-s', '-m', 5,
        'http://alice:8000/hello');
    is($got->{stdout}, "hello\n", 'a program reaches a peer by name')
        or diag($got->{output});
    my $net = $t->ctl('exec', 'web', '--', 'ip', '-br', 'address');
    like($net->{stdout}, qr/^mesh0 .*100\.64\.0\.1/m, 'it is on the mesh');
    unlike($net->{stdout}, qr/eth0/, 'and nowhere else');

    is($t->ctl('exec', 'web', '--', 'sh', '-c', 'exit 7')->{exit}, 7,
        'its exit code is passed on');
    is($t->ctl('exec', 'web', '--', 'sh', '-c', 'kill -9 $$')->{exit}, -9,
        'so is a signal');
    fails($t->ctl('exec', 'web', '--', '/no/such/program'), 127,
        qr{/no/such/program: No such file}, 'no such program');
    fails($t->ctl('exec', 'web', '--', $t->testdir), 126,
        qr{: Permission denied}, 'no program');
    fails($t->ctl('exec', 'nobody', '--', 'true'), 1, qr/no node "nobody"/,
        'no such node');
    fails($t->ctl('exec', @$_), 2, qr/exec takes NODE -- COMMAND/,
        "exec @$_") for ['web'], ['web', '--'], ['web', 'true'];
};

subtest 'several nodes' => sub {
    $t->write_config($config . <<'EOC');
tailnet_node other {
    netmap       %%TESTDIR%%/other.json;
    private_key  %%TESTDIR%%/other.key;
    port         41642;
}
EOC
    ok($t->reload, 'another node');
    ok(Test::Tailnet::Process::until_true(5, sub {
        $t->ctl('status')->{stdout} =~ /^other: running$/m;
    }), 'is in the table');
    is(scalar json($t->ctl('--json', 'status', 'other')->{stdout})
        ->{nodes}->@*, 1, 'one of them can be asked for');
    fails($t->ctl('ping', 'alice'), 1, qr/there are 2 nodes: name one/,
        'whose alice?');
    ok($t->ctl('ping', 'web/alice')->{ok}, "web's alice");
    fails($t->ctl('whois', '100.64.0.2'), 1, qr/there are 2 nodes/,
        'whose address?');
    fails($t->ctl('whois', 'other/100.64.0.2'), 1,
        qr/nobody has this address/, 'not of the other');
    my $got = $t->run_in('host', 'setpriv', '--reuid', 65534, '--regid', 65534,
        '--clear-groups', $t->binary('tailnetctl'), '--socket',
        $t->testdir . '/nginx-tailnet/admin.sock', 'status');
    fails($got, 1, qr/admin\.sock: Permission denied/, 'somebody else');
};

# What peers and people are called is somebody's choice.
subtest 'names that would write elsewhere' => sub {
    my $evil = "evil\e[2J\n10.1.1.1 www.example.com \x{9b}2J\x7f";
    $t->netmap('other.json', self => $other, peers => [
        { %$alice, fqdn => "$evil." }, { %$runner, tags => ["tag:$evil"] }],
        users => { 'alice@example.com' => { DisplayName => $evil } });
    my $tame = qr/(?i:\Qevil?[2J?10.1.1.1 www.example.com ??2J?\E)/;
    ok(Test::Tailnet::Process::until_true(5, sub {
        $t->ctl('status', 'other')->{stdout} =~ /evil/;
    }), 'they are there');
    for my $case (['status', qr/^  100\.64\.0\.2 +$tame /m],
        ['status', qr/ tag:$tame /],
        ['whois', qr/^node +$tame\n/, 'other/100.64.0.2'],
        ['whois', qr/\($tame\)\n/, 'other/100.64.0.2'],
        ['whois', qr/^tags +tag:$tame\n/m, 'other/100.64.0.3']) {
        my ($command, $want, $arg) = @$case;
        my $got = $t->ctl($command, $arg // 'other')->{stdout};

        like($got, $want, "$command shows it");
        unlike($got, qr/[^\n\x20-\x7e]/, 'as it may be shown');
    }
    unlike($t->ctl('--json', 'status', 'other')->{stdout},
        qr/[^\n\x20-\x7e]/, 'in JSON too');
    my $hosts = $t->ctl('exec', 'other', '--', 'cat', '/etc/hosts')->{stdout};
    like($hosts, qr/^100\.64\.0\.3 runner\.tailnet\.test runner$/m,
        'a good name is in the hosts file');
    unlike($hosts, qr/www|evil/, 'and no bad one');
};

$t->done_testing;
