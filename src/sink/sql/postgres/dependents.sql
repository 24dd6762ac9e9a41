-- The views, rules, policies and triggers that depend on columns or on the primary key of tables, and on such views. Views come before the
-- views that use them, and all views before rules, policies and triggers of tables. $1: a JSON list of objects with `relation`, a
-- qualified and quoted name, and `column`; null is the primary key.
WITH RECURSIVE wanted AS (
    SELECT pg_catalog.to_regclass(w.relation)::pg_catalog.oid AS relation, w."column"
    FROM pg_catalog.json_to_recordset($1::pg_catalog.json) AS w (relation pg_catalog.text, "column" pg_catalog.text)
), root AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, a.attrelid AS object, a.attnum::pg_catalog.int4 AS part, w."column"
    FROM wanted AS w
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = w.relation AND a.attname = w."column" AND NOT a.attisdropped
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0, NULL
    FROM wanted AS w
    JOIN pg_catalog.pg_constraint AS k ON k.conrelid = w.relation AND k.contype = 'p'
    WHERE w."column" IS NULL
), kind (class) AS (
    VALUES ('pg_catalog.pg_rewrite'::pg_catalog.regclass), ('pg_catalog.pg_policy'::pg_catalog.regclass),
        ('pg_catalog.pg_trigger'::pg_catalog.regclass)
), path AS (
    SELECT d.classid, d.objid, r."column", 1 AS depth
    FROM root AS r
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = r.class AND d.refobjid = r.object AND d.refobjsubid = r.part
    JOIN kind AS k ON k.class = d.classid
    UNION
    SELECT d.classid, d.objid, p."column", p.depth + 1
    FROM path AS p
    JOIN pg_catalog.pg_rewrite AS w ON p.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = p.objid
        AND w.rulename = '_RETURN'
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = w.ev_class
        AND d.objid <> w.oid
    JOIN kind AS k ON k.class = d.classid
), nearest AS (
    SELECT classid, objid, pg_catalog.min("column") AS "column", pg_catalog.min(depth) AS first, pg_catalog.max(depth) AS depth
    FROM path
    GROUP BY classid, objid
), object AS (
    SELECT CASE WHEN c.relkind = 'm' THEN 'materialized view' WHEN w.rulename = '_RETURN' THEN 'view' WHEN w.oid IS NOT NULL THEN 'rule'
            WHEN p.oid IS NOT NULL THEN 'policy' ELSE 'trigger' END AS kind,
        d.objid, d."column", d.first, d.depth, COALESCE(w.rulename, p.polname, g.tgname) AS name, c.oid AS relation, c.relname,
        n.nspname, c.relowner, c.relispopulated, c.relpersistence
    FROM nearest AS d
    LEFT JOIN pg_catalog.pg_rewrite AS w ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid
    LEFT JOIN pg_catalog.pg_policy AS p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_trigger AS g ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND g.oid = d.objid
        AND NOT g.tgisinternal
    JOIN pg_catalog.pg_class AS c ON c.oid = COALESCE(w.ev_class, p.polrelid, g.tgrelid)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
)
SELECT o.kind, CASE WHEN o.kind LIKE '%view' THEN o.relation ELSE o.objid END, pg_catalog.format('%I.%I', o.nspname, o.relname),
    pg_catalog.quote_ident(o.name), o."column", o.first = 1, pg_catalog.pg_get_userbyid(o.relowner),
    pg_catalog.pg_has_role(session_user, o.relowner,
        CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000 THEN 'SET' ELSE 'MEMBER' END),
    pg_catalog.format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(o.relowner), session_user), o.relpersistence = 't', o.relispopulated
FROM object AS o
-- What belongs to a view is part of its definition.
WHERE o.kind LIKE '%view' OR NOT EXISTS (SELECT FROM object AS v WHERE v.kind LIKE '%view' AND v.relation = o.relation)
ORDER BY o.kind NOT LIKE '%view', o.depth, o.nspname, o.relname, o.name
