# httpd.pl ADDRESS PORT ROOT: a small HTTP server for tests.  GET /NAME sends
# that file of ROOT, /echo the request's head as it came.  One connection, one
# answer.  It ends with its standard input.

use v5.36;

use IO::Select;
use IO::Socket::IP;

my ($addr, $port, $root) = @ARGV;

my $server = IO::Socket::IP->new(LocalHost => $addr, LocalPort => $port,
    Listen => 128, ReuseAddr => 1) or die "$addr:$port: $@\n";
my $select = IO::Select->new($server, \*STDIN);

$SIG{CHLD} = 'IGNORE';
$| = 1;
say 'ready';

LOOP: while (1) {
    for my $fh ($select->can_read) {
        last LOOP if $fh == \*STDIN && !sysread STDIN, my $buf, 256;
        next if $fh != $server;
        my $client = $server->accept or next;
        my $pid = fork;
        if (defined $pid && !$pid) {
            close $server;
            alarm 120;
            answer($client);
            exit;
        }
        close $client;
    }
}

sub answer ($client) {
    my $head = '';

    while ($head !~ /\r\n\r\n/ && length $head < 65536) {
        sysread $client, $head, 4096, length $head or return;
    }
    my ($path) = $head =~ m{^GET /([\w.-]*)} or return;
    if ($path eq 'echo') {
        send_all($client, header('200 OK', length $head) . $head);
        return;
    }
    open my $file, '<:raw', "$root/$path"
        or return send_all($client, header('404 Not Found', 0));
    send_all($client, header('200 OK', -s $file)) or return;
    while (read $file, my $data, 65536) {
        send_all($client, $data) or return;
    }
}

sub header ($status, $length) {
    return "HTTP/1.1 $status\r\nContent-Length: $length\r\n"
        . "Content-Type: application/octet-stream\r\n"
        . "Connection: close\r\n\r\n";
}

sub send_all ($client, $data) {
    my $sent = 0;

    while ($sent < length $data) {
        $sent += syswrite($client, $data, length($data) - $sent, $sent)
            // return 0;
    }
    return 1;
}
