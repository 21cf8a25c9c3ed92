# NixOS: services.nginx.tailnet, and "tailnet" in virtual hosts and locations.
#
# nginx's unit has no right to make networks, so tailnetd is a unit of its own,
# and nginx uses its nodes: "tailnet_engine unix:PATH".
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib)
    attrNames
    attrValues
    concatStringsSep
    escapeShellArgs
    filter
    filterAttrs
    hasPrefix
    length
    literalExpression
    mapAttrsToList
    mkDefault
    mkEnableOption
    mkIf
    mkMerge
    mkOption
    optional
    types
    unique
    ;

  render = import ./render.nix { inherit lib; };

  nginx = config.services.nginx;
  cfg = nginx.tailnet;
  names = attrNames cfg.nodes;

  # The node that is meant where none is named.
  only = if length names == 1 then builtins.head names else null;

  socket = "/run/tailnetd/admin.sock";

  rule = types.strMatching "(accept|reject)( +[^ ;{}]+)+";
  limit = types.strMatching "([^;{}]* )?rate=[0-9]+r/[sm]( [^;{}]*)?";

  common = {
    acl = mkOption {
      type = types.listOf rule;
      default = [ ];
      example = [
        "accept tag:dev alice@example.com"
        "reject *"
      ];
      description = "Rules of tailnet_acl, in order; the first that matches decides.";
    };

    limitReq = mkOption {
      type = types.listOf limit;
      default = [ ];
      example = [
        "rate=20r/s burst=40 nodelay"
        "rate=2r/s for=tag:ci"
      ];
      description = "Limits of tailnet_limit_req.";
    };

    headers = mkOption {
      type = types.nullOr types.bool;
      default = null;
      description = "Whether applications get Tailscale-* headers; null: as the level above says.";
    };
  };

  listenOptions = {
    options = {
      node = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Name of the node; may be left out where there is only one.";
      };
      port = mkOption {
        type = types.port;
        description = "Port of the mesh.";
      };
      ssl = mkOption {
        type = types.bool;
        default = false;
        description = "Whether to speak TLS, with the certificate of the virtual host.";
      };
      parameters = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "default_server" ];
        description = "More parameters of tailnet_listen.";
      };
    };
  };

  nodeOptions = {
    options = {
      netmap = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/var/lib/mesh/netmap.json";
        description = "The netmap file; a change is applied at once.";
      };
      privateKey = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/run/secrets/mesh.key";
        description = "File with the node's private key. Not in the Nix store.";
      };
      presharedKeys = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "File with preshared keys. Not in the Nix store.";
      };
      port = mkOption {
        type = types.port;
        default = 0;
        example = 41641;
        description = "UDP port of WireGuard; 0: any.";
      };
      mtu = mkOption {
        type = types.ints.between 1280 9000;
        default = 1280;
        description = "Size of the largest packet inside the mesh.";
      };
      settings = mkOption {
        type = types.attrsOf (
          types.oneOf [
            types.bool
            types.int
            types.str
            (types.listOf types.str)
          ]
        );
        default = { };
        example = literalExpression ''
          {
            control_url = "https://headscale.example.com";
            auth_key = "file:/run/secrets/mesh.authkey";
            tags = [ "tag:web" ];
          }
        '';
        description = ''
          Other options of tailnet_node, by their names there. A node that joins
          by a control server has these instead of netmap and privateKey; its
          state is kept in /var/lib/tailnetd unless it says where, or is ephemeral.
        '';
      };
      openFirewall = mkOption {
        type = types.bool;
        default = true;
        description = "Whether to open the UDP port in the firewall.";
      };
    };
  };

  locationModule =
    { config, ... }:
    {
      options.tailnet = common;
      config.extraConfig = mkIf cfg.enable (render.common config.tailnet);
    };

  hostModule =
    { name, config, ... }:
    {
      options.tailnet = common // {
        listen = mkOption {
          type = types.listOf (types.either types.port (types.submodule listenOptions));
          default = [ ];
          example = literalExpression ''[ 80 { node = "web"; port = 443; ssl = true; } ]'';
          description = "Ports of the mesh that this virtual host listens on.";
        };
        only = mkOption {
          type = types.bool;
          default = false;
          description = ''
            Whether the virtual host is for the mesh alone. Without, it also
            has the listeners that services.nginx gives to every host.
          '';
        };
      };

      options.locations = mkOption {
        type = types.attrsOf (types.submodule locationModule);
      };

      config = mkIf cfg.enable {
        extraConfig = render.server only config.tailnet;

        # services.nginx knows no host without a listener: one that nobody but
        # nginx's own user can reach.
        listen = mkIf config.tailnet.only [
          { addr = "unix:/run/nginx/${name}.sock"; }
        ];
      };
    };

  # For messages: what is said, of which host or location.
  hosts = mapAttrsToList (name: host: {
    inherit host;
    name = "services.nginx.virtualHosts.${name}";
    all = [ host.tailnet ] ++ map (l: l.tailnet) (attrValues host.locations);
  }) nginx.virtualHosts;

  used =
    t:
    t.acl != [ ] || t.limitReq != [ ] || t.headers != null || (t ? listen && (t.listen != [ ] || t.only));

  listens = h: map (render.named only) h.host.tailnet.listen;

  twice = list: unique (filter (x: length (filter (y: y == x) list) > 1) list);

  given = filter (x: x != null);
  secrets = n: given [
    n.privateKey
    n.presharedKeys
  ];

  joins = n: n.netmap == null && n.privateKey == null;

  withState =
    name: n:
    n
    // {
      settings =
        (if joins n && !(n.settings.ephemeral or false) then
          { state = "/var/lib/tailnetd/${name}"; }
        else
          { }
        )
        // n.settings;
    };

  nodeAssertions = name: n: [
    {
      assertion = builtins.match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" name != null;
      message = "services.nginx.tailnet.nodes.${name}: a node's name is up to 63 of a-z, 0-9 and inner \"-\".";
    }
    {
      assertion = !(lib.any (f: hasPrefix builtins.storeDir f) (secrets n));
      message = "services.nginx.tailnet.nodes.${name}: keys in the Nix store can be read by everybody; give the path of a file elsewhere, as a string.";
    }
    {
      assertion = (n.netmap == null) == (n.privateKey == null);
      message = "services.nginx.tailnet.nodes.${name}: netmap and privateKey go together.";
    }
    {
      assertion = joins n -> n.settings != { };
      message = "services.nginx.tailnet.nodes.${name}: either netmap and privateKey, or settings with the control server to join by.";
    }
    {
      assertion = lib.all (hasPrefix "/") (secrets n ++ given [ n.netmap ]);
      message = "services.nginx.tailnet.nodes.${name}: netmap, privateKey and presharedKeys have to be absolute paths.";
    }
  ];

  hostAssertions =
    h:
    map (l: {
      assertion = l.node != null;
      message = "${h.name}.tailnet.listen: port ${toString l.port} has to name its node, there are several: ${concatStringsSep ", " names}.";
    }) (listens h)
    ++ map (l: {
      assertion = l.node == null || builtins.elem l.node names;
      message = "${h.name}.tailnet.listen: there is no node \"${toString l.node}\" in services.nginx.tailnet.nodes.";
    }) (listens h)
    ++ map (l: {
      assertion = l.port != 0;
      message = "${h.name}.tailnet.listen: port 0 is not a port.";
    }) (listens h)
    ++ [
      {
        assertion = h.host.tailnet.only -> h.host.tailnet.listen != [ ];
        message = "${h.name}.tailnet: \"only\" without \"listen\": nobody could reach this host.";
      }
      {
        assertion = h.host.tailnet.only -> length h.host.listen == 1;
        message = "${h.name}: \"listen\" is given although tailnet.only says that it is for the mesh alone.";
      }
    ];

  # Certificate authorities come to the public listener, without an identity.
  hostWarnings =
    h:
    optional
      (
        h.host.tailnet.acl != [ ]
        && h.host.enableACME
        && !(lib.any (r: builtins.match ".* local( .*)?" r != null) h.host.tailnet.acl)
      )
      "${h.name}.tailnet.acl keeps the certificate authority out: move it to locations, or accept \"local\".";

  configFile = pkgs.writeText "tailnetd.conf" (render.nodes (lib.mapAttrs withState cfg.nodes));
in
{
  options.services.nginx = {
    tailnet = {
      enable = mkEnableOption "nginx as a node of a mesh (nginx-tailnet)";

      package = mkOption {
        type = types.package;
        default = pkgs.nginx-tailnet;
        defaultText = literalExpression "pkgs.nginx-tailnet";
        description = "Package of tailnetd, with the module for nginx in passthru.nginxModule.";
      };

      nodes = mkOption {
        type = types.attrsOf (types.submodule nodeOptions);
        default = { };
        example = literalExpression ''
          {
            web = {
              netmap = "/var/lib/mesh/netmap.json";
              privateKey = "/run/secrets/mesh.key";
              port = 41641;
            };
          }
        '';
        description = "Nodes of meshes, by name.";
      };

      logLevel = mkOption {
        type = types.enum [
          "error"
          "warn"
          "notice"
          "info"
          "debug"
        ];
        default = "notice";
        description = "What tailnetd writes to the journal.";
      };

      limitZone = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "4m";
        description = "Size of the memory of all limitReq (tailnet_limit_zone).";
      };
    };

    virtualHosts = mkOption {
      type = types.attrsOf (types.submodule hostModule);
    };
  };

  config = mkMerge [
    {
      assertions = map (h: {
        assertion = cfg.enable || !(lib.any used h.all);
        message = "${h.name} uses \"tailnet\", but services.nginx.tailnet.enable is not set.";
      }) hosts;
    }

    (mkIf cfg.enable {
      assertions = [
        {
          assertion = nginx.enable;
          message = "services.nginx.tailnet needs services.nginx.enable.";
        }
        {
          assertion = cfg.nodes != { };
          message = "services.nginx.tailnet.nodes is empty: nginx would be a node of nothing.";
        }
        {
          assertion = twice (given (map (n: n.privateKey) (attrValues cfg.nodes))) == [ ];
          message = "services.nginx.tailnet.nodes: two nodes with one privateKey; each needs its own.";
        }
        {
          assertion = twice (filter (p: p != 0) (map (n: n.port) (attrValues cfg.nodes))) == [ ];
          message = "services.nginx.tailnet.nodes: two nodes with one port.";
        }
      ]
      ++ lib.concatLists (mapAttrsToList nodeAssertions cfg.nodes)
      ++ lib.concatMap hostAssertions hosts;

      warnings = lib.concatMap hostWarnings hosts;

      services.nginx = {
        additionalModules = [ cfg.package.nginxModule ];
        appendConfig = "tailnet_engine unix:${socket};\n";
        commonHttpConfig = mkIf (cfg.limitZone != null) "tailnet_limit_zone ${cfg.limitZone};\n";
      };

      environment.systemPackages = [ cfg.package ];
      environment.etc."tailnetd/tailnetd.conf".source = configFile;
      boot.kernelModules = [ "tun" ];

      networking.firewall.allowedUDPPorts = map (n: n.port) (
        attrValues (filterAttrs (_: n: n.openFirewall && n.port != 0) cfg.nodes)
      );

      users.users.tailnetd = {
        isSystemUser = true;
        group = "tailnetd";
        description = "The engine of tailnetd";
      };
      users.groups.tailnetd = { };

      systemd.services.nginx = {
        wants = [ "tailnetd.service" ];
        after = [ "tailnetd.service" ];
      };

      systemd.services.tailnetd = {
        description = "Nodes of a mesh for nginx";
        wantedBy = [ "multi-user.target" ];
        after = [ "network.target" ];
        reloadTriggers = [ configFile ];

        serviceConfig = {
          Type = "notify";
          ExecStart = escapeShellArgs [
            "${cfg.package}/bin/tailnetd"
            "-c"
            "/etc/tailnetd/tailnetd.conf"
            "--socket"
            socket
            "--level"
            cfg.logLevel
            "--engine-user"
            "tailnetd"
            "--client"
            nginx.user
          ];
          # A running nginx has listeners of the tailnetd before.
          ExecStartPost = "-+${pkgs.systemd}/bin/systemctl try-reload-or-restart --no-block nginx.service";
          # The answer comes when the file has been read.
          ExecReload = [
            "${cfg.package}/bin/tailnetd -t -c /etc/tailnetd/tailnetd.conf"
            "${pkgs.coreutils}/bin/kill -HUP $MAINPID"
            "${cfg.package}/bin/tailnetctl --socket ${socket} status"
          ];
          Restart = "always";
          RestartSec = "1s";

          RuntimeDirectory = "tailnetd";
          RuntimeDirectoryMode = "0711";
          StateDirectory = "tailnetd";
          StateDirectoryMode = "0700";
          UMask = "0077";
          LimitNOFILE = 65536;

          # Rights: see "isolate.h"; CHOWN gives the socket to nginx's user.
          CapabilityBoundingSet = [
            "CAP_SYS_ADMIN"
            "CAP_NET_ADMIN"
            "CAP_NET_BIND_SERVICE"
            "CAP_DAC_OVERRIDE"
            "CAP_SETUID"
            "CAP_SETGID"
            "CAP_KILL"
            "CAP_CHOWN"
          ];
          NoNewPrivileges = true;
          DevicePolicy = "closed";
          DeviceAllow = [ "/dev/net/tun rw" ];
          RestrictNamespaces = [ "net" ];
          RestrictAddressFamilies = [
            "AF_UNIX"
            "AF_INET"
            "AF_INET6"
            "AF_NETLINK"
          ];
          SystemCallArchitectures = "native";
          SystemCallFilter = [ "~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap" ];

          # Not ProtectKernelTunables: the sysctls of its own networks.
          ProtectSystem = "strict";
          ProtectHome = mkDefault true;
          ProtectClock = true;
          ProtectHostname = true;
          ProtectKernelModules = true;
          ProtectKernelLogs = true;
          ProtectControlGroups = true;
          ProtectProc = "invisible";
          PrivateTmp = true;
          LockPersonality = true;
          MemoryDenyWriteExecute = true;
          RestrictRealtime = true;
          RestrictSUIDSGID = true;
          RemoveIPC = true;
        };
      };
    })
  ];
}
