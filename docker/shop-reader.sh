# Sourced by the MariaDB image when the demo shop's server is made: the user that exports read with.
docker_process_sql --database=mysql <<SQL
CREATE USER 'exportapp'@'%' IDENTIFIED BY '$SHOP_READER_PASSWORD' WITH MAX_USER_CONNECTIONS 20;
GRANT SELECT, SHOW VIEW ON shop.* TO 'exportapp'@'%';
SQL
