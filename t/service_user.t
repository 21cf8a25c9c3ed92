# An nginx that is not root, and is sandboxed by its service manager, uses the
# nodes of a tailnetd that lets it in: --client.

use v5.36;

use File::Copy qw(copy);
use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $dir = $t->testdir;
my ($user, $other) = grep { defined getpwnam $_ } qw(www-data nobody daemon);
my ($uid, $gid) = (getpwnam $user)[2, 3];
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');

$t->netmap('web.json', self => $web, peers => [$alice]);
$t->write_file('tailnetd.conf', <<'EOF');
tailnet_node web { netmap web.json; private_key web.key; port 41641; }
EOF

# The user reads neither the tree nor its build.
mkdir "$dir/user";
mkdir "$dir/user/html";
$t->write_file('user/html/index.html', "hello\n");
for my $name (qw(nginx module tailnetctl)) {
    copy($t->binary($name), "$dir/user/$name") or die "$name: $!";
    chmod 0755, "$dir/user/$name";
}
chown $uid, $gid, "$dir/user";

my $config = $t->expand(<<"EOF");
load_module $dir/user/module;
daemon off;
pid $dir/user/nginx.pid;
error_log $dir/user/error.log info;
tailnet_engine unix:$dir/run/admin.sock;
events { }
http {
    @{[map { "$_\n" } map { s{\Q$dir\E/}{$dir/user/}gr } $t->http_globals]}
    server {
        listen %%HOST%%:8080;
        tailnet_listen web:80;
        location / {
            tailnet_acl accept local alice\@example.com;
            root $dir/user/html;
        }
    }
}
EOF
my $file = $t->write_file('user.conf', $config);

sub as ($who, @cmd) {
    return ('setpriv', '--reuid', $who, '--regid', $gid, '--clear-groups',
        '--bounding-set', '-all', @cmd);
}

# With the rights that the unit of nix/module.nix has, and no more.
my ($rights) = Test::Tailnet::Process::slurp("$FindBin::Bin/../nix/module.nix")
    =~ /CapabilityBoundingSet = \[([^\]]*)\]/;
my @rights = map { lc } $rights =~ /"CAP_(\w+)"/g;
cmp_ok(@rights, '>', 5, 'rights of a service');

sub service ($name, @args) {
    my $proc = $t->spawn('host', ['setpriv', '--no-new-privs',
        '--bounding-set', join(',', '-all', map { "+$_" } @rights),
        $t->binary('tailnetd'), '-c', "$dir/tailnetd.conf", '--socket',
        "$dir/run/admin.sock", '--log', "$dir/tailnetd.log", @args],
        name => $name);

    Test::Tailnet::Process::until_true(5, sub {
        !$proc->alive || -S "$dir/run/admin.sock"
            && $t->run_in('host', $t->binary('tailnetctl'), '--socket',
            "$dir/run/admin.sock", 'status')->{ok};
    });
    return $proc;
}

sub status ($who) {
    return $t->run_in('host', as($who, "$dir/user/tailnetctl", '--socket',
        "$dir/run/admin.sock", 'status'));
}

like($t->run_in('host', $t->binary('tailnetd'), '-c', "$dir/tailnetd.conf",
    '--socket', "$dir/run/admin.sock", '--client', 'no-such-user')->{output},
    qr/--client no-such-user: there is no such user/, 'an unknown user');
ok(!-e "$dir/run", 'and nothing was made');

my $closed = service('closed');
ok($closed->alive, 'a service without --client');
ok(!status($user)->{ok}, 'lets nobody in but root');
$closed->stop;

# Directories that were made stay; as systemd's RuntimeDirectory would be:
chmod 0711, "$dir/run";
my $service = service('service', '--client', $user);
ok($service->alive, 'with --client') or diag($service->stderr);
ok(status($user)->{ok}, 'the user is let in');
ok(!status($other)->{ok}, 'and no other user');

my $nginx = $t->spawn('host', [as($user, "$dir/user/nginx", '-p',
    "$dir/user/", '-c', $file, '-e', "$dir/user/error.log")],
    name => 'nginx-user', env => $t->nginx_env);
my $lan = 'http://' . $t->underlay('host') . ':8080/';
ok($t->wait_http('host', $lan, 10), "nginx runs as $user")
    or diag($nginx->stderr);
like(Test::Tailnet::Process::slurp('/proc/' . $nginx->pid . '/status'),
    qr/^Uid:\s+$uid\s.*^CapEff:\s+0+$/ms, 'with no capability at all');

$t->start_wgpeer($alice, peers => [$web]);
my $r = $t->http_get('alice', 'http://100.64.0.1/');
is($r->status, 200, 'alice comes through port 80 of the mesh')
    or diag($r->text);

my $mark = $t->log_mark('user/error.log');
$nginx->signal('HUP');
ok($t->wait_for_log(qr/start worker process \d/, 10, file => 'user/error.log',
    from => $mark), 'it reloads');
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'alice again');
unlike($t->read_log('user/error.log'), qr/\[(?:error|crit|alert|emerg)\]/,
    'without an error');

$t->done_testing;
