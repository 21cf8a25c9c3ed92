# tailnetd as a service of its own, without nginx: its file, its signals, and two
# of them talking.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(needs => [qw(tailnetd tailnetctl)]);
my $tailnetd = $t->binary('tailnetd');
my $dir = $t->testdir;

sub until_true { Test::Tailnet::Process::until_true(@_) }

subtest 'is a file well?' => sub {
    my $node = $t->node('probe');
    my $good = <<"EOC";
# a comment
tailnet_node one {
    netmap $dir/one.json;
    private_key $node->{key_file};
    port 41641;
}
EOC
    my $result = sub ($text) {
        my $file = $t->write_file('t.conf', $text);
        return $t->run_in('probe', $tailnetd, '-t', '-c', $file);
    };
    my $got = $result->($good);
    ok($got->{ok}, 'a good one') or diag($got->{output});
    is($got->{stdout}, "tailnetd: $dir/t.conf is well: 1 node\n", 'is said so');
    # Test programs run in their test's folder.
    $t->write_file('t.conf', $good =~ s{\Q$dir\E/}{}gr);
    $got = $t->run_in('probe', $tailnetd, '-t', '-c', 't.conf');
    is($got->{stdout}, "tailnetd: $dir/t.conf is well: 1 node\n",
        'relative names') or diag($got->{output});
    my $second = $good =~ s/one/two/gr =~ s/probe\.key/two.key/r
        =~ s/41641/41642/r;
    $got = $result->($good . $second);
    like($got->{stdout}, qr/is well: 2 nodes$/, 'two nodes');

    for my $case (
        [5, qr/"frobnicate"/, $good =~ s/port/frobnicate/r],
        [5, qr/port.*70000/, $good =~ s/41641/70000/r],
        [6, qr/unexpected "}"/, $good =~ s/41641;/41641/r],
        [8, qr/tailnet_node "one" is there twice/,
            $good . $second =~ s/node two/node one/r],
        [8, qr/has the "private_key" of tailnet_node "one"/, $good . $second =~ s/two\.key/probe.key/r],
        [2, qr/netmap/, $good =~ s/^.*netmap.*\n//mr],
        [2, qr/private_key/, $good =~ s/^.*private_key.*\n//mr],
        [7, qr/http/, $good . "http { }\n"],
    ) {
        my ($line, $regex, $text) = @$case;

        $got = $result->($text);
        is($got->{exit}, 1, "refused: $regex");
        like($got->{stderr}, qr{\Atailnetd: \Q$dir\E/t\.conf:$line: .*$regex},
            "  names line $line");
        is($got->{stdout}, '', '  and says nothing else');
    }
    $got = $result->("# nothing\n");
    is($got->{stderr}, "tailnetd: $dir/t.conf: there is no tailnet_node\n",
        'an empty file');
    $got = $t->run_in('probe', $tailnetd, '-t', '-c', "$dir/none.conf");
    is($got->{exit}, 1, 'no file');
    like($got->{stderr}, qr{\Atailnetd: .*none\.conf.*No such file}, 'is said');
    like($t->run_in('probe', $tailnetd, '-v')->{stdout}, qr/\Atailnetd \d+\./,
        'a version');
    $got = $t->run_in('probe', $tailnetd, '--frob');
    is($got->{exit}, 1, 'an unknown option');
    like($got->{stderr}, qr/^usage: tailnetd -c FILE/m, 'shows the usage');
};

my ($one, $two) = map { $t->node($_) } qw(one two);
my $to_two = { src => [$one->{addr}->@*],
    dst => ['100.64.0.3:8000', '[fd7a:115c:a1e0::3]:8000'], proto => [6] };
my $a = $t->start_tailnetd_client($one, peers => [$two]);
my $b = $t->start_tailnetd_client($two, peers => [$one],
    rules => [{ %$to_two, src => ['100.64.9.9'] }]);

sub node ($client, $name) {
    my $doc = JSON::PP::decode_json($client->ctl('--json', 'status',
        $name)->{stdout});
    return $doc->{nodes}[0];
}

mkdir "$dir/html";
$t->write_file('html/hello', "hello\n");

subtest 'two of them' => sub {
    ok($a->ctl('ping', 'two')->{exit}, "no ping by others' rule");
    # As in Tailscale, to whom a port is open, echo is.
    $t->netmap('two.json', self => $two, peers => [$one], rules => [$to_two]);
    ok(until_true(5, sub { $a->ctl('ping', 'two')->{ok} }), 'a ping with one');

    for my $port (8000, 8001) {
        $t->start_httpd('two', addr => $two->{addr}[0], port => $port,
            root => "$dir/html");
    }
    $t->start_httpd('two', addr => $two->{addr}[1], port => 8000,
        root => "$dir/html");
    is($t->http_get('one', 'http://two:8000/hello')->body, "hello\n",
        'a request by name');
    is($t->http_get('one', 'http://[fd7a:115c:a1e0::3]:8000/hello')->body,
        "hello\n", 'and by address');
    my $before = node($b, 'two')->{filter};
    is($t->http_get('one', 'http://two:8001/hello', timeout => 1)->exit, 28,
        'not to a port without a rule');
    cmp_ok(node($b, 'two')->{filter}{drop_no_rule}, '>',
        $before->{drop_no_rule}, 'it is counted');
    $t->start_httpd('one', addr => $one->{addr}[0], port => 8000,
        root => "$dir/html");
    is($t->http_get('two', 'http://one:8000/hello', timeout => 1)->exit, 28,
        'without rules there is no way in');
};

subtest 'SIGHUP' => sub {
    my $log = 'one.tailnetd.log';
    my $config = Test::Tailnet::Process::slurp("$dir/one.conf");
    my $mark = $t->log_mark($log);
    my $three = $t->node('three', ns => 'one', port => 41643);

    $t->netmap('three.json', self => $three, peers => []);
    $t->write_file('one.conf', "$config\ntailnet_node three {\n"
        . "netmap $dir/three.json;\nprivate_key $three->{key_file};\n"
        . "port 41643;\n}\n");
    kill HUP => $a->pid;
    ok(until_true(5, sub { $a->ctl('status')->{stdout} =~ /^three: running/m }),
        'another node runs') or diag($t->log_since($mark, $log));
    is($t->http_get('one', 'http://two:8000/hello')->body, "hello\n",
        'the first goes on');

    $mark = $t->log_mark($log);
    $t->write_file('one.conf', "$config\nfrobnicate;\n");
    kill HUP => $a->pid;
    ok($t->wait_for_log(qr{\[error\].*one\.conf:\d+: .*frobnicate}, 5,
        file => $log, from => $mark), 'a bad file is in the log')
        or diag($t->log_since($mark, $log));
    like($a->ctl('status')->{stdout}, qr/^three: running/m,
        'what was there goes on');

    $mark = $t->log_mark($log);
    $t->write_file('one.conf', $config);
    kill HUP => $a->pid;
    ok(until_true(5, sub { $a->ctl('status')->{stdout} !~ /^three/m }),
        'a node that is gone from the file ends');
    is($t->http_get('one', 'http://two:8000/hello')->body, "hello\n",
        'the first goes on');
};

subtest 'one key, one tailnetd' => sub {
    my $got = $t->run_in('two', $tailnetd, '-c', "$dir/one.conf", '--socket',
        "$dir/again.sock");
    is($got->{exit}, 1, 'a second one does not start');
    like($got->{stderr} . $got->{stdout},
        qr{one\.key: this node key is in use by another tailnetd}, 'and why');
    $got = $t->run_in('one', $tailnetd, '-c', "$dir/one.conf", '--socket',
        "$dir/one.sock");
    is($got->{exit}, 1, 'nor one at the same socket');
    like($got->{stderr} . $got->{stdout}, qr{one\.sock|one\.key}, 'and why');
    ok($a->ctl('status')->{ok}, 'the first is there');
};

subtest 'SIGTERM' => sub {
    is($a->stop('TERM'), 0, 'ends it well');
    ok(!-e "$dir/one.sock", 'its socket is gone');
    is_deeply([grep { Test::Tailnet::Process::slurp("/proc/$_/environ")
        =~ /one\.tailnetd/ } $t->own_pids], [], 'nothing of it is left');
    my $log = Test::Tailnet::Process::slurp("$dir/one.tailnetd.log");
    unlike($log, qr/\[(?:emerg|alert|crit)\]/, 'without a complaint');
    like((split /\n/, $log)[-1], qr/tailnetd: ended/, 'the last line says so');

    $a = $t->start_tailnetd_client($one, peers => [$two]);
    ok(until_true(10, sub {
        $t->http_get('one', 'http://two:8000/hello', timeout => 2)->ok;
    }), 'started again, it is where it was');
};

$t->done_testing;
