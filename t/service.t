# tailnetd as a service of its own ("tailnetd -c"): nginx uses its nodes and
# defines none.  Both may be restarted at any time.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Socket qw(AF_UNIX SOCK_DGRAM MSG_DONTWAIT sockaddr_un);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $lab = { $t->nginx_node('lab')->%*, port => 41642 };
my $alice = $t->node('alice');
my $dir = $t->testdir;
my $url = 'http://100.64.0.1/';

$t->netmap('web.json', self => $web, peers => [$alice]);
$t->netmap('lab.json', self => $lab, peers => []);

# Names of files are beside the service's own file.
my $nodes = <<'EOF';
tailnet_node web {
    netmap       web.json;
    private_key  web.key;
    port         41641;
}
EOF
$t->write_file('tailnetd.conf', $nodes);

my $starts = 0;

sub service (@args) {
    $starts++;
    return $t->spawn('host', [$t->binary('tailnetd'), '-c',
        "$dir/tailnetd.conf", '--socket', "$dir/run/admin.sock", '--log',
        "$dir/tailnetd.log", @args], name => "service$starts",
        env => { NOTIFY_SOCKET => "$dir/notify" });
}

sub ctl (@args) {
    return $t->run_in('host', $t->binary('tailnetctl'), '--socket',
        "$dir/run/admin.sock", @args);
}

sub service_up () {
    return Test::Tailnet::Process::until_true(5,
        sub { -S "$dir/run/admin.sock" && ctl('status')->{ok} });
}

sub config ($listen, $more = '') { <<"EOF" }
tailnet_engine unix:%%TESTDIR%%/run/admin.sock;
events { }
http {
    server {
        listen %%HOST%%:%%PORT_8080%%;
        tailnet_listen $listen;
        location / {
            tailnet_acl accept local alice\@example.com;
            add_header X-User \$tailnet_user;
            return_body;
        }
        location = /status {
            tailnet_acl accept alice\@example.com;
            tailnet_status;
        }
    }
    $more
}
EOF

mkdir "$dir/html";
$t->write_file('html/index.html', "hello\n");

sub write_nginx ($listen, $more = '') {
    $t->write_config(
        config($listen, $more) =~ s{return_body}{root %%TESTDIR%%/html}r);
}

sub asks_alice ($what) {
    my $r = $t->http_get('alice', $url);
    is($r->status, 200, $what) or diag($r->text);
    is($r->header('x-user'), 'alice@example.com', 'who is known');
}

# tailnetd -t
is($t->run_in('host', $t->binary('tailnetd'), '-t', '-c',
    "$dir/tailnetd.conf")->{output},
    "tailnetd: $dir/tailnetd.conf is well: 1 node\n", 'tailnetd -t');

# What "nginx -t" can say about nodes it does not know.
my $r = $t->test_config(config('80') =~ s{return_body}{root /}r);
like($r->{output}, 
    qr{must name its node, nodes .* at "\Q$dir\E/run/admin\.sock" in \S+:6$}m,
    'nginx -t wants names');
ok(!$r->{ok}, 'and fails');

# nginx without the service.
write_nginx('web:80', <<'EOF');
upstream beyond { tailnet_server web/203.0.113.9:80; }
    server {
        listen %%HOST%%:%%PORT_8081%%;
        proxy_connect_timeout 1s;
        location / { proxy_pass http://beyond; }
    }
EOF
$t->run;
my $lan = 'http://' . $t->underlay('host') . ':8080/';
is($t->http_get('host', $lan)->status, 200, 'the LAN is served');
like($t->read_log,
    qr{\[error\].* to tailnetd at "\Q$dir\E/run/admin\.sock" \(2: .*service},
    'a line says what is missing');
ok(!$t->holder, 'nginx starts none');

# The service comes; nginx finds it with a reload.
mkdir "$dir/run", 0755;
socket my $manager, AF_UNIX, SOCK_DGRAM, 0 or die "socket: $!";
bind $manager, sockaddr_un("$dir/notify") or die "notify: $!";
my $service = service();
ok(service_up(), 'the service is up') or diag($service->stderr);
recv $manager, my $word, 100, MSG_DONTWAIT;
is($word, 'READY=1', 'and says so to its manager');
my $peer = $t->start_wgpeer($alice, peers => [$web]);
ok($t->reload, 'nginx reloads');
asks_alice('alice comes through the service');
is($t->http_get('alice', "${url}status")->status, 200, 'tailnet_status');
like(ctl('status')->{output}, qr/alice/, 'tailnetctl');

# nginx goes and comes.
ok($t->stop, 'nginx ends');
ok($service->alive, 'the service does not');
$t->run;
asks_alice('alice meets the new nginx');

# Whether its nodes may go beyond the mesh is the service's to know.
is($t->http_get('host', $lan =~ s/8080/8081/r)->status, 504,
    'an address behind others is tried');
unlike($t->read_log, qr/is the address of no node/, 'and not refused unseen');

# The service's file changes, SIGHUP.
my $mark = $t->log_mark('tailnetd.log');
$t->write_file('tailnetd.conf', $nodes . "tailnet_node lab { port x; }\n");
$service->signal('HUP');
ok($t->wait_for_log(qr{tailnetd\.conf:6: "port": a number .*stay as they are},
    5, file => 'tailnetd.log', from => $mark), 'a mistake is refused');
asks_alice('and changes nothing');

$mark = $t->log_mark('tailnetd.log');
$t->write_file('tailnetd.conf', $nodes . "tailnet_node lab {\n"
    . "netmap lab.json; private_key lab.key; port 41642;\n}\n");
$service->signal('HUP');
ok($t->wait_for_log(qr{tailnetd\.conf was read again}, 5,
    file => 'tailnetd.log', from => $mark), 'a second node');
asks_alice('the first goes on');

# A name that the service does not have.
$mark = $t->log_mark;
write_nginx('web:80', 'server { tailnet_listen nosuch:80; }');
ok($t->reload, 'nginx reloads with an unknown node');
like($t->log_since($mark),
    qr{ no IPv4 socket for port 80 of node "nosuch": .*listener is left out},
    'which is said');
asks_alice('the others are served');

write_nginx('web:80', 'server { tailnet_listen lab:80; }');
$mark = $t->log_mark;
ok($t->reload, 'nginx reloads with the second node');
unlike($t->log_since($mark), qr/\[error\]/, 'which is there');

# nginx must not define nodes for it.
$mark = $t->log_mark;
$t->write_config("tailnet_node own { netmap web.json; private_key lab.key; }\n"
    . config('own:80') =~ s{return_body}{root %%TESTDIR%%/html}r);
my $told = qr{this tailnetd is a service .*: define them there, not in nginx};
$t->expect_alert($told);
$t->signal_nginx('HUP');
ok($t->wait_for_log($told, 5, from => $mark),
    'a service takes no nodes from nginx');
asks_alice('and the configuration of before rules');
write_nginx('web:80');
ok($t->reload, 'nginx reloads without');
asks_alice('alice is served');

# The service is restarted under a running nginx.
$mark = $t->log_mark;
$service->stop;
$service = service();
ok(service_up(), 'the service was restarted') or diag($service->stderr);
ok($t->wait_for_log(qr{lost the channel .* when the service is back}, 5,
    from => $mark), 'workers say what is to be done');
is($t->http_get('host', $lan)->status, 200, 'the LAN is served');
ok($t->reload, 'nginx reloads');

# Without its old session, which the new service cannot know.
$peer->remove_peer($web);
$peer->add_peer($web);
asks_alice('alice after that');

# The engine is killed: the service is its parent.
$t->expect_alert(qr{engine \d+ was killed by signal 9});
ok($t->kill_engine, 'another engine follows a killed one');
asks_alice('alice after that');

$t->done_testing;
