# What module.nix meets in NixOS: the options that it sets or reads.
{ lib, ... }:

let
  inherit (lib) mkOption types;

  lines = mkOption {
    type = types.lines;
    default = "";
  };
  list = mkOption {
    type = types.listOf types.anything;
    default = [ ];
  };
  anything = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };

  host = {
    options = {
      extraConfig = lines;
      enableACME = mkOption {
        type = types.bool;
        default = false;
      };
      listen = list;
      locations = mkOption {
        type = types.attrsOf (types.submodule { options.extraConfig = lines; });
        default = { };
      };
    };
  };
in
{
  options = {
    assertions = list;
    warnings = list;
    boot = anything;
    environment = anything;
    networking = anything;
    systemd = anything;
    users = anything;

    services.nginx = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      user = mkOption {
        type = types.str;
        default = "nginx";
      };
      additionalModules = list;
      appendConfig = lines;
      commonHttpConfig = lines;
      virtualHosts = mkOption {
        type = types.attrsOf (types.submodule host);
        default = { };
      };
    };
  };
}
